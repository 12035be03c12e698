"""The terminal chat, driven as a user drives it: in tmux, in a bare pseudo-terminal, and through a pipe."""

import fcntl
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid

import pytest
from conftest import ROOT, assert_one_line_error, cli
from test_merge import make_adapter

from instructrec.core.schema import HELD_OUT, read_split

COMMAND = [sys.executable, "-m", "instructrec", "chat"]
ASKED = re.compile(r"(\d+) tokens asked, (\d+) written")


class Tmux:
    """A chat in a tmux session of its own server."""

    def __init__(self, arguments):
        self.socket = f"instructrec-{uuid.uuid4().hex[:8]}"
        self._tmux("-f", os.devnull, "new-session", "-d", "-x", "120", "-y", "50", shlex.join([*COMMAND, *arguments]))
        self._tmux("set-option", "-g", "remain-on-exit", "on")

    def _tmux(self, *arguments):
        command = ["tmux", "-L", self.socket, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    def screen(self):
        return self._tmux("capture-pane", "-p", "-J", "-S", "-2000").rstrip()

    def type(self, line):
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def interrupt(self):
        self._tmux("send-keys", "C-c")

    def ended(self):
        return self._tmux("list-panes", "-F", "#{pane_dead}").strip() == "1"

    def close(self):
        self._tmux("kill-server")


class Pty:
    """A chat in a pseudo-terminal, whose output is read as it comes."""

    def __init__(self, arguments):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 120, 0, 0))

        def own_terminal():  # so that Ctrl-C reaches the chat and not the tests
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            [*COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal, cwd=ROOT
        )
        os.close(slave)
        self.output = ""

    def screen(self):
        while select.select([self.master], [], [], 0)[0]:
            try:
                self.output += os.read(self.master, 65536).decode(errors="replace")
            except OSError:  # the other side is closed
                break
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", self.output).rstrip()

    def type(self, line):
        os.write(self.master, f"{line}\n".encode())

    def interrupt(self):
        os.write(self.master, b"\x03")

    def ended(self):
        self.screen()
        return self.process.poll() is not None

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)


@pytest.fixture(
    params=[
        pytest.param(Tmux, marks=pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")),
        Pty,
    ],
    ids=["tmux", "pty"],
)
def terminal(request, tiny_model):
    """A chat with a model that never ends a reply by itself within the time of a test."""
    place = request.param(["--model_name_or_path", str(tiny_model), "--max-new-tokens", "900"])
    yield place
    place.close()


def wait_for(terminal, happened, seconds=120):
    """The screen, once `happened` is true of it."""
    deadline = time.monotonic() + seconds
    while not happened(screen := terminal.screen()):
        assert time.monotonic() < deadline, screen
        assert not terminal.ended(), screen
        time.sleep(0.05)
    return screen


def replies_to(text):
    """True of a screen on which some of the reply to `text` stands."""
    return lambda screen: text in screen and len(screen.rpartition(text)[2]) > 20


def waits(count):
    """True of a screen on which the chat waits for the next line, the `count`th."""
    return lambda screen: screen.endswith("\n>") and len(re.findall(r"^>", screen, re.M)) == count


def test_a_reply_streams_stops_at_ctrl_c_and_is_remembered(terminal):
    wait_for(terminal, waits(1))
    terminal.type("Say something long.")
    shown = [len(wait_for(terminal, replies_to("something long.")))]
    for _ in range(3):  # it grows before it is complete
        shown.append(len(wait_for(terminal, lambda screen: len(screen) > shown[-1])))
    terminal.interrupt()
    screen = wait_for(terminal, waits(2))
    assert screen.count("[stopped]") == 1
    asked, written = map(int, ASKED.findall(screen)[-1])
    assert written < 900

    terminal.type("And then?")
    wait_for(terminal, replies_to("And then?"))
    for _ in range(3):  # pressed again while it stops
        terminal.interrupt()
    screen = wait_for(terminal, lambda screen: len(ASKED.findall(screen)) == 2 and screen.endswith("\n>"))
    assert int(ASKED.findall(screen)[-1][0]) > asked + written  # question and reply are asked along

    terminal.interrupt()  # at the prompt
    wait_for(terminal, lambda screen: "Ctrl-D or /quit ends" in screen.rpartition("[stopped]")[2])
    terminal.type("/clear")
    terminal.type("Say it again.")
    wait_for(terminal, replies_to("it again."))
    terminal.interrupt()
    screen = wait_for(terminal, lambda screen: len(ASKED.findall(screen)) == 3)
    assert int(ASKED.findall(screen)[-1][0]) < asked + 10  # nothing is remembered
    terminal.type("/help")
    wait_for(terminal, lambda screen: "/pick [SPLIT]" in screen and "/system [TEXT]" in screen)
    terminal.type("/quit")
    deadline = time.monotonic() + 60
    while not terminal.ended():
        assert time.monotonic() < deadline, terminal.screen()
        time.sleep(0.1)


def talk(lines, *arguments):
    """What the chat prints for lines from a pipe."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input="".join(f"{line}\n" for line in lines),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def adapters(tiny_model, instruction_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return [make_adapter(folder / name, tiny_model, seed, dataset=instruction_set) for seed, name in enumerate("ab")]


def test_two_adapters_answer_the_same_held_out_question_and_the_gold_answer_follows(adapters, instruction_set):
    flags = [flag for adapter in adapters for flag in ("--adapter", adapter)]
    lines = ["/pick test_templates", "And why?", "/pick", "/pick test_task"]
    printed = talk(lines, *flags, "--max-new-tokens", "8")
    first, why, second, third, _ = printed.split("\n> ")[1:]

    row_id = re.search(r"test_templates · \S+ · (\w+)", first)[1]
    row = next(row for row in read_split(instruction_set, "test_templates") if row["id"] == row_id)
    question, replies = first.split(f"{row['prompt'][-1]['content']}\n", 1)
    assert str(adapters[0]) not in question
    assert replies.index(str(adapters[0])) < replies.index(str(adapters[1])) < replies.index("gold: ")
    assert replies.rstrip().endswith(f"gold: {row['targets'][0]}")
    assert len({asked for asked, _ in ASKED.findall(first)}) == 1  # the same prompt
    for (before, written), (asked, _) in zip(ASKED.findall(first), ASKED.findall(why), strict=True):
        assert int(asked) > int(before) + int(written)  # each goes on from its own reply
    assert "gold: " not in why
    assert any(f"{split} · " in second for split in HELD_OUT) and "train · " not in second
    assert "there is no 'test_task'" in third and "Did you mean 'test_tasks'?" in third


def test_the_system_prompt_is_asked_along_and_can_be_changed(tiny_model):
    flags = ["--model_name_or_path", tiny_model, "--max-new-tokens", "3", "--system", "Answer in rhyme, always."]
    lines = ["Hello", "/clear", "/system", "Hello", "/clear", "/system Answer in rhyme, always.", "Hello"]
    tokens = [int(asked) for asked, _ in ASKED.findall(talk(lines, *flags))]
    assert tokens[0] == tokens[2] > tokens[1] + 5


def test_a_full_context_forgets_the_oldest_turns_and_a_long_message_is_refused(tiny_model):
    lines = ["word " * 500, "word " * 500, "word " * 500, "word " * 5000, "Hello"]
    printed = talk(lines, "--model_name_or_path", tiny_model, "--max-new-tokens", "400").split("\n> ")[1:]
    assert "first 2 messages are forgotten" in "".join(printed[1:3])
    assert "too long" in printed[3] and not ASKED.search(printed[3])
    assert ASKED.search(printed[4])


def test_what_is_no_command_is_said_or_sent(tiny_model):
    printed = talk(
        ["/halp", "/etc/hosts is what?", "/pick"], "--model_name_or_path", tiny_model, "--max-new-tokens", "3"
    )
    assert "there is no /halp. Did you mean '/help'?" in printed
    assert len(ASKED.findall(printed)) == 1  # a path is a message
    assert "start the chat with --suite" in printed


def test_adapters_of_two_bases_do_not_chat(adapters, tiny_model, tmp_path):
    base = shutil.copytree(tiny_model, tmp_path / "other")
    other = make_adapter(tmp_path / "adapter", base, 3)
    done = cli("chat", "--adapter", str(adapters[0]), "--adapter", str(other))
    assert_one_line_error(done, str(other), str(base), "one base")


def test_an_item_with_a_system_message_is_asked_under_that_one_alone(tiny_model, tmp_path):
    suite = tmp_path / "pairs.jsonl"
    prompt = [{"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "What burns at dusk?"}]
    answers = {
        key: [{"role": "assistant", "content": text}] for key, text in (("chosen", "Lamps"), ("rejected", "Fog"))
    }
    suite.write_text(json.dumps({"prompt": prompt, **answers}) + "\n")
    flags = ["--model_name_or_path", tiny_model, "--max-new-tokens", "3", "--suite", suite]
    alone, with_another = (
        ASKED.findall(talk(["/pick", "And then?"], *flags, *more))
        for more in ([], ["--system", "Answer in rhyme, always."])
    )
    assert [asked for asked, _ in alone] == [asked for asked, _ in with_another]
