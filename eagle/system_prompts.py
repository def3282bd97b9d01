"""System prompts, by name or from a text file."""

from pathlib import Path

from eagle.errors import InputError

SYSTEM_PROMPTS = Path(__file__).parents[1] / "resources" / "system_prompts"


def system_turn(name: str) -> list[dict]:
    """The system turn of a system prompt, as a list of one message; empty for "none".

    Args:
        name: "none", the name of a file in resources/system_prompts without .txt, or the path of a
            text file.

    Raises:
        InputError: `name` is neither a known name nor a file.
    """
    if name == "none":
        return []
    named = SYSTEM_PROMPTS / f"{name}.txt"
    path = named if named.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(prompt.stem for prompt in SYSTEM_PROMPTS.glob("*.txt")))
        raise InputError(
            f"system_prompt = {name}: neither a known prompt (none, {known}) nor a text file"
        )
    return [{"role": "system", "content": path.read_text(encoding="utf-8").strip()}]
