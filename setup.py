"""What pyproject.toml cannot say: the scripts of the project's root go into the package, beside what they import."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PACKAGE = "yolov5_biformer"
SCRIPTS = ("train", "val", "detect", "export", "benchmark", "ablate", "hubconf")


class BuildWithScripts(build_py):
    """Takes the scripts for modules of the package."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """(package, module, file) of each module."""
        modules = super().find_package_modules(package, package_dir)
        if package == PACKAGE:
            modules += [(package, name, f"{name}.py") for name in SCRIPTS if Path(f"{name}.py").is_file()]
        return modules


setup(cmdclass={"build_py": BuildWithScripts})
