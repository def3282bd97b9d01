"""Everything in params.yaml that can be checked before any work: values, and the files they name.

Nothing here imports torch: what it finds must be said before a stage begins.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from eagle.config import Evaluate, Params, Section, ShareGpt, Template, Train, Verifier, load_params
from eagle.decoding.paths import ordered_paths
from eagle.errors import InputError
from eagle.files import read_json
from eagle.questions import HUB_QUESTIONS, read_questions
from eagle.sharegpt.sources import sources_of
from eagle.system_prompts import system_turn
from eagle.verifier.package import package_folder
from eagle.yaml_file import read_yaml

PARAMS = Path("params.yaml")


def checked_params(path: Path = PARAMS) -> Params:
    """The parameters, all of them checked, and the files that they name.

    Raises:
        InputError: something cannot be used; every problem has a line.
    """
    problems = []
    try:
        params = load_params(path)
        sections = {name: getattr(params, name) for name in Params.model_fields}
    except InputError as error:
        problems.append(str(error))
        sections = _sections_that_are_right(path)
    for section in sections.values():
        for problem in _files_of(section):
            problems.append(f"{path}: {problem}")
    if problems:
        raise InputError("\n".join(problems))
    return params


def _sections_that_are_right(path: Path) -> dict[str, Section]:
    """The sections that can be read on their own; a wrong one must not hide what others lack."""
    sections = {}
    try:
        content = read_yaml(path)
    except InputError:  # `load_params` has said the same
        return sections
    for name, field in Params.model_fields.items():
        try:
            sections[name] = field.annotation.model_validate(content[name])
        except (ValidationError, KeyError, TypeError):
            continue  # as above
    return sections


def _files_of(section: Section) -> Iterator[str]:
    """What cannot be used of the files, packages and trees that a section names."""
    checks = {
        Verifier: [_verifier],
        ShareGpt: [_conversations, _system_prompt, _training_bench],
        Template: [_template],
        Train: [_draft_config, _initial_draft],
        Evaluate: [_bench, _system_prompt, _tree],
    }
    for check in checks.get(type(section), []):
        try:
            check(section)
        except InputError as error:
            yield str(error)


def _verifier(verifier: Verifier) -> None:
    kind, _, name = verifier.source.partition(":")
    if kind == "path":
        if not (Path(name) / "config.json").is_file():
            raise InputError(
                f"verifier.source = {verifier.source}: the folder has no config.json; give the "
                "folder of a model in transformers layout (config.json, *.safetensors, tokenizer "
                "files)"
            )
    elif kind == "package":
        package_folder(name, verifier.revision)


def _conversations(sharegpt: ShareGpt) -> None:
    for source in sources_of(sharegpt.source, sharegpt.revision):
        if not source.on_hub:
            try:
                source.files()
            except InputError as error:
                raise InputError(f"sharegpt.source = {error}") from None


def _training_bench(sharegpt: ShareGpt) -> None:
    named = sharegpt.bench is None or sharegpt.bench in HUB_QUESTIONS
    if not named and not Path(sharegpt.bench).exists():
        raise InputError(
            f"sharegpt.bench = {sharegpt.bench}: there is no such file or folder; give one of "
            f"{', '.join(HUB_QUESTIONS)}, a path, or null"
        )


def _system_prompt(section: ShareGpt | Evaluate) -> None:
    try:
        system_turn(section.system_prompt)
    except InputError as error:
        raise InputError(f"{type(section).__name__.lower()}.{error}") from None


def _template(template: Template) -> None:
    if template.file is not None and not Path(template.file).is_file():
        raise InputError(
            f"template.file = {template.file}: there is no such file; give a chat template with "
            "{% generation %} markers, or null to have one found"
        )


def _draft_config(train: Train) -> None:
    if train.eagle_config_path is not None:
        try:
            read_json(train.eagle_config_path)
        except InputError as error:
            raise InputError(f"train.eagle_config_path = {error}") from None


def _initial_draft(train: Train) -> None:
    kind, _, folder = train.initialization.partition(":")
    if kind == "path":
        for name in ("config.json", "model.safetensors"):
            if not (Path(folder) / name).is_file():
                raise InputError(
                    f"train.initialization = {train.initialization}: the folder has no {name}; "
                    "give the folder of a draft, such as models/export/official"
                )


def _bench(evaluate: Evaluate) -> None:
    if evaluate.bench not in HUB_QUESTIONS:
        read_questions(evaluate.bench)


def _tree(evaluate: Evaluate) -> None:
    if not isinstance(evaluate.static_tree, str):
        try:
            ordered_paths(evaluate.static_tree)
        except InputError as error:
            raise InputError(f"evaluate.static_tree: {error}") from None
