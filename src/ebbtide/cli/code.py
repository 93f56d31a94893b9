"""The Python files that the words of a command name: nothing else is imported as a user's code."""

from argparse import Namespace

from ebbtide.user_code import load, names_a_file, split_words


def named_files(options: Namespace) -> list[tuple[str, str]]:
    """The files that hold code for a command, each after the option that names it: `--code FILE`, `--task FILE:CLASS`,
    `--study FILE`."""
    named = [("code", words) for words in getattr(options, "code", [])]
    named += [one for one in options.fields if one[0] in ("task", "source", "model") and names_a_file(one[1])]
    if options.command in ("run", "resume") and names_a_file(options.study or ""):
        named.append(("study", options.study))
    return named


def load_files(options: Namespace) -> None:
    """Imports the files that the command names. Raises `InputError` where one cannot be imported."""
    for option, words in named_files(options):
        load(words, option)


def file_words(options: Namespace) -> list[str]:
    """The words by which the files are named again when the work is continued."""
    words: list[str] = []
    for option, named in named_files(options):
        pair = ["--study", named] if option == "study" else ["--code", str(split_words(named)[0])]
        words += [] if pair[1] in words else pair
    return words
