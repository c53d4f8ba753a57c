#!/usr/bin/env python3
"""Runs the project's development sessions from a bare checkout, with any Python 3 and nothing installed.

python3 dev.py demo     see the mesh at work
python3 dev.py test     run the tests, on each Python from 3.11 on that this machine has
python3 dev.py lint     check style; with --fix, mend it
python3 dev.py types    check types
python3 dev.py bench    measure; with --all, everything
python3 dev.py docs     build the documentation into docs/_build/html

What follows the name is handed on: `python3 dev.py test tests/policy -x`. On its first run it makes `.venv` with nox in
it; nox makes an environment for each session. Both are used again until what they hold changes. `NOXPYTHON=3.12`
restricts `test` to one Python.
"""
# Any Python 3.6 has to get as far as saying what is missing: no newer syntax, and no newer module at the top.

import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
OLDEST = (3, 11)
SESSIONS = {"demo": "demo", "test": "tests", "lint": "lint", "types": "types", "bench": "bench", "docs": "docs"}

CLOSING = re.compile(r"^(=+ )?(\d+ \w+(, \d+ \w+)*|no tests ran) in \d+(\.\d+)?s( \([^)]*\))?( =+)?$")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def say(text):
    """Prints one line of progress."""
    print("dev.py: " + text, flush=True)


def main(arguments):
    """Runs the named session; the exit code is its own, or 2 for what dev.py itself cannot do."""
    if not arguments or arguments[0] not in SESSIONS:
        print(__doc__.strip())
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    if sys.version_info < OLDEST:
        return start_again(arguments)
    os.chdir(ROOT)
    if not make_environment():
        return 2
    command = [VENV_PYTHON, "-m", "nox", "-f", os.path.join(ROOT, "noxfile.py"), "-s", SESSIONS[arguments[0]]]
    if arguments[0] == "test":
        fetching = None if arguments[1:] else fetch_peers()
        install_side_by_side(command)
        code = run_tests(command + ["--"] + arguments[1:])
        if fetching is not None:
            fetching.wait()
        return code
    command += ["--"] + arguments[1:]
    sys.stdout.flush()
    os.execv(command[0], command)


# Finding a Python


def start_again(arguments):
    """Runs this file with a Python that is recent enough."""
    for python in pythons():
        say("going on with " + python)
        os.execv(python, [python, os.path.abspath(__file__)] + arguments)
    print("dev.py: this needs Python 3.11 or later; %s is %s." % (sys.executable, sys.version.split()[0]))
    print(remedy("3.11", ["python3.11", "python3.11-venv"]))
    return 2


def pythons():
    """Each Python from 3.11 on that runs, this one first, then the newest."""
    candidates = [sys.executable] if sys.version_info >= OLDEST else []
    names = ["python3.%d" % minor for minor in range(19, 10, -1)]
    pyenv = os.environ.get("PYENV_ROOT") or os.path.join(os.path.expanduser("~"), ".pyenv")
    for name in names:
        directories = os.environ.get("PATH", os.defpath).split(os.pathsep)
        candidates += [os.path.join(directory, name) for directory in directories]
        candidates += sorted(glob.glob(os.path.join(pyenv, "versions", "*", "bin", name)))
    seen = set()
    for python in candidates:
        real = os.path.realpath(python)
        if real not in seen and os.access(python, os.X_OK):
            seen.add(real)
            # A stand-in of pyenv for a version that is not switched on exists and fails.
            if answers(python, "import sys; sys.exit(sys.version_info < (3, 11))"):
                yield python


def answers(python, code):
    """Whether this Python runs this code without error."""
    try:
        done = subprocess.run(
            [python, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=30, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def remedy(version, packages):
    """The line that mends a missing Python or a missing part of one."""
    if shutil.which("apt-get"):
        sudo = "" if os.geteuid() == 0 else "sudo "
        return "dev.py: this mends it:\n\n    %sapt-get update && %sapt-get install -y %s\n" % (
            sudo,
            sudo,
            " ".join(packages),
        )
    return "dev.py: install Python %s or later with pip and venv, and start again." % version


# The environment that holds nox


def nox_requirement():
    """What pyproject.toml asks of nox."""
    import tomllib

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        tools = tomllib.load(file)["dependency-groups"]["dev"]
    return next(tool for tool in tools if isinstance(tool, str) and tool.startswith("nox"))


def make_environment():
    """Makes `.venv` with nox in it, unless it is there. False if this machine has no way to."""
    requirement = nox_requirement()
    stamp = os.path.join(VENV, "dev-stamp")
    try:
        with open(stamp) as file:
            if file.read() == requirement and answers(VENV_PYTHON, "import nox"):
                return True
    except OSError:
        pass
    started = time.monotonic()
    log = []
    for python in pythons():
        for way in (with_ensurepip, with_pip_from_outside, with_uv):
            shutil.rmtree(VENV, ignore_errors=True)
            if way(python, requirement, log) and answers(VENV_PYTHON, "import nox"):
                # With it nox makes environments in a tenth of the time. Where there is none, pip does it.
                attempt([VENV_PYTHON, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "uv"], log)
                with open(stamp, "w") as file:
                    file.write(requirement)
                say("made .venv from %s in %.0f s" % (python, time.monotonic() - started))
                return True
    shutil.rmtree(VENV, ignore_errors=True)
    print("\n".join(log))
    version = "3.%d" % sys.version_info[1]
    print("dev.py: %s cannot make a virtual environment with nox in it; see above." % sys.executable)
    print(remedy(version, ["python%s-venv" % version]))
    return False


def with_ensurepip(python, requirement, log):
    """The ordinary way. Debian leaves `ensurepip` out unless python3-venv is installed."""
    if not answers(python, "import ensurepip, venv"):
        log.append("%s has no ensurepip" % python)
        return False
    say("making .venv with %s" % python)
    return attempt([python, "-m", "venv", VENV], log) and attempt(
        [VENV_PYTHON, "-m", "pip", "install", "--quiet", requirement], log
    )


def with_pip_from_outside(python, requirement, log):
    """An environment without pip, filled by a pip that lies elsewhere on the machine."""
    if not answers(python, "import venv"):
        log.append("%s has no venv" % python)
        return False
    say("making .venv with %s, which has no ensurepip" % python)
    if not attempt([python, "-m", "venv", "--without-pip", VENV], log):
        return False
    wanted = ["install", "--quiet", "pip", requirement]
    if answers(python, "import pip") and attempt([python, "-m", "pip", "--python", VENV_PYTHON] + wanted, log):
        return True
    # A wheel of pip runs as it lies, for an interpreter that has none. Debian keeps one for virtualenv.
    for wheel in sorted(glob.glob("/usr/share/python-wheels/pip-*.whl"), reverse=True):
        if attempt([VENV_PYTHON, os.path.join(wheel, "pip")] + wanted, log):
            return True
    log.append("no pip on this machine for %s" % python)
    return False


def with_uv(python, requirement, log):
    """With uv, where it is installed."""
    uv = shutil.which("uv")
    if uv is None:
        return False
    say("making .venv with uv and %s" % python)
    return attempt([uv, "venv", "--quiet", "--python", python, VENV], log) and attempt(
        [uv, "pip", "install", "--quiet", "--python", VENV_PYTHON, "pip", requirement], log
    )


def attempt(command, log):
    """Runs a command; what it printed goes into `log` if it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, check=False
    )
    if done.returncode:
        log.append("$ " + " ".join(command))
        log.append(done.stdout.strip())
    return done.returncode == 0


# The tests


def fetch_peers():
    """Begins to download the real servers that tests need: it is done by the time the last Python needs them.

    What goes wrong here the session tells, which then tries again.
    """
    fetch = os.path.join(ROOT, "tests", "peers", "fetch.py")
    return subprocess.Popen([VENV_PYTHON, fetch], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def install_side_by_side(command):
    """Makes the environments of several Pythons at once, where there are none yet: an installation keeps one core busy.

    What goes wrong here each session tells, which then tries again.
    """
    listed = subprocess.run(
        command + ["--list", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    try:
        sessions = [session["session"] for session in json.loads(listed.stdout)]
    except ValueError:
        return
    new = [name for name in sessions if not os.path.exists(os.path.join(ROOT, ".nox", name.replace(".", "-")))]
    if len(new) < 2:
        return
    say("making environments for " + ", ".join(new))
    started = time.monotonic()
    children = [
        subprocess.Popen(command[:-1] + [name, "--install-only"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in new
    ]
    for child in children:
        child.wait()
    say("made them in %.0f s" % (time.monotonic() - started))


def run_tests(command):
    """Runs the test sessions so that the output ends with pytest's own closing line.

    With several Pythons it is that of the last session, which runs all tests, or of the last that failed.
    """
    environment = dict(os.environ)
    if sys.stdout.isatty() and "NO_COLOR" not in environment:
        environment.setdefault("FORCE_COLOR", "1")  # the pipe hides the terminal from pytest
    child = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True
    )
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGINT))  # so that nox ends its children
    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal tells nox too; what it says is still shown
    closings = []
    session = "tests"
    for line in child.stdout:
        plain = ANSI.sub("", line).strip()
        if plain.startswith("nox > Running session "):
            session = plain.rsplit(" ", 1)[1]
        if CLOSING.match(plain):
            closings.append((session, line, plain))
            print("dev.py: %s: %s" % (session, plain.strip("= ")), flush=True)
        else:
            print(line, end="", flush=True)
    code = child.wait()
    failed = [closing for closing in closings if re.search(r"\d+ (failed|error)", closing[2])]
    for _, line, _ in (failed or closings)[-1:]:
        print(line, end="", flush=True)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
