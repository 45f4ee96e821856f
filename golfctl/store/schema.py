"""The files a person writes, as models: shape, limits, a description of every key. Editors get their JSON Schema.

Only this module and `validate` know pydantic. Import it inside commands: it is not free.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from golfctl.domain.gate import METRICS
from golfctl.store.gates import HOW, parse_requirement

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ID_RULE = "must be letters, digits, '.', '_' or '-', at most 64, the first a letter or digit"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _id(value: str) -> str:
    if not ID.fullmatch(value):
        raise ValueError(f"{value!r} {ID_RULE}")
    return value


def _setting_name(value: str) -> str:
    if not SETTING.fullmatch(value):
        raise ValueError(f"{value!r} is no name of an environment variable; it must match [A-Za-z_][A-Za-z0-9_]*")
    return value


def _setting_value(value: Any) -> str:
    if value is None:
        raise ValueError("has no value; write '' for an empty text")
    if isinstance(value, list | dict):
        kind = "list" if isinstance(value, list) else "mapping"
        raise ValueError(f"is a {kind}; a setting is one value (try alternatives as several plans)")
    if isinstance(value, bool):
        return "1" if value else "0"  # the field reads switches as bool(int(...))
    text = str(value)
    if "\n" in text or "\0" in text:
        raise ValueError("has more than one line; a setting is one line of text")
    return text


def _whole_number_index(values: list[int]) -> list[int]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise PydanticCustomError(
                "at_index", "{message}", {"index": index, "message": f"seed {value} stands twice"}
            )
    return values


def _span(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [value, value]
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("must be a number or a range [low, high]")
    if all(isinstance(end, int | float) for end in value) and value[0] > value[1]:
        raise ValueError(f"[{value[0]}, {value[1]}]: the low end comes first")
    return value


def _alternative(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def gate_number(key: Any) -> Any:
    """A quoted gate number as a number: to YAML `1:` and `"1":` are different keys, to a person they are not."""
    return int(key) if isinstance(key, str) and re.fullmatch("[0-9]{1,3}", key) else key


def _keys(value: Any) -> Any:
    return {gate_number(key): item for key, item in value.items()} if isinstance(value, dict) else value


Id = Annotated[str, AfterValidator(_id)]
SettingName = Annotated[str, AfterValidator(_setting_name)]
SettingValue = Annotated[
    Any, AfterValidator(_setting_value), WithJsonSchema({"type": ["string", "number", "integer", "boolean"]})
]
Settings = dict[SettingName, SettingValue]
Seeds = Annotated[
    list[Annotated[int, Field(ge=0, le=2**31 - 1)]],
    Field(min_length=1, max_length=100),
    AfterValidator(_whole_number_index),
]
Span = Annotated[
    list[float] | None,
    BeforeValidator(_span),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}]}
    ),
]


class DiffFile(_Model):
    """One targeted change: settings, or a patch."""

    set: Settings | None = Field(default=None, description="Settings to change: environment variable to value.")
    patch: str | None = Field(
        default=None, description="A unified diff, relative to the plans folder; applied as `git apply` does."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> DiffFile:
        if (self.set is None) == (self.patch is None):
            said = "holds both 'set' and 'patch'" if self.set is not None else "holds neither 'set' nor 'patch'"
            raise ValueError(f"{said}; a diff is one of them")
        return self


class RequireFile(_Model):
    """Checks on every run of a gate, and on the score."""

    score: str | None = Field(default=None, description="'<= 1.1174', '<= base - 0.07' or '<= parent - 0.01'.")
    step_avg_ms: str | None = Field(default=None, description="Bound on the mean step time in ms, e.g. '<= 130'.")
    artifact_bytes: str | None = Field(default=None, description="Bound on code + model, decimal bytes.")
    train_time_ms: str | None = Field(default=None, description="Bound on the training time in ms.")
    eval_time_ms: str | None = Field(default=None, description="Bound on the evaluation time in ms.")
    peak_mem_mib: str | None = Field(default=None, description="Bound on the peak memory in MiB.")
    at_gpus: int | None = Field(default=None, ge=1, description="GPU count at which step_avg_ms holds.")

    @field_validator(*METRICS, mode="before")
    @classmethod
    def _a_rule(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"has no comparison; write '<= {value}'")
        if not isinstance(value, str):
            raise ValueError(f"must be text; {HOW}")
        parse_requirement(str(info.field_name), value)
        return value


class GateDiffFile(_Model):
    """What a plan changes about a gate of golf.yaml; the rest stays."""

    require: RequireFile | None = Field(
        default=None, description="Requirements, merged by name with those of golf.yaml."
    )
    overriding: bool | None = Field(
        default=None, description="A violated cost aborts the run at once and can't be waived."
    )
    looks: int | None = Field(
        default=None, ge=1, le=100, description="How often the result may be judged; alpha is shared."
    )
    alpha: float | None = Field(default=None, gt=0, lt=0.5, description="One-sided error rate.")
    seeds: int | None = Field(default=None, ge=1, le=100, description="How many of the plan's seeds run here.")
    paired: bool | None = Field(default=None, description="Compare with the parent seed by seed.")
    min_gain: float | None = Field(
        default=None, ge=0, description="Smallest visible improvement over the parent, in bpb."
    )
    parent_seeds: int | None = Field(default=None, ge=1, le=100, description="Parent runs a comparison needs.")
    env: Settings | None = Field(default=None, description="Settings of the gate, such as the length of a smoke run.")
    processes: int | None = Field(default=None, ge=1, le=1024, description="GPUs (or CPU processes) one run takes.")
    wallclock_s: float | None = Field(default=None, gt=0, description="Seconds after which the host ends a run.")
    stall_s: float | None = Field(
        default=None, gt=0, description="Seconds without a log line after which the host ends a run."
    )
    estimate_s: float | None = Field(default=None, gt=0, description="Seconds a run is expected to take.")


class GateFile(GateDiffFile):
    """One gate of golf.yaml."""

    name: Id = Field(description="Short name, e.g. smoke.")
    kind: Literal["threshold", "versus"] = Field(description="Judged against a number, or against the parent's runs.")


class ExpectFile(_Model):
    """Expected changes against the parent: a number or [low, high] each."""

    score: Span = Field(default=None, description="Change of the score in bpb; lower is better.")
    bytes: Span = Field(default=None, description="Change of the artifact in bytes.")
    step_avg_ms: Span = Field(default=None, description="Change of the mean step time in ms.")
    train_time_ms: Span = Field(default=None, description="Change of the training time in ms.")
    eval_time_ms: Span = Field(default=None, description="Change of the evaluation time in ms.")
    peak_mem_mib: Span = Field(default=None, description="Change of the peak memory in MiB.")


def _fallback_schema(schema: dict[str, Any]) -> None:
    listed = {key: schema.pop(key) for key in ("items", "type") if key in schema}
    if listed:
        schema["anyOf"] = [listed["items"], listed]


class PlanFile(_Model):
    """A plan of a golfctl campaign: one hypothesis, its diffs, the gates it has to pass."""

    id: Id = Field(description="The plan's name; the file is called ID.yaml.")
    title: str = Field(min_length=1, max_length=200, description="The idea in one line.")
    hypothesis: str = Field(min_length=1, description="Why it should work, and what one would see if it does.")
    expect: ExpectFile = Field(default_factory=ExpectFile, description="Expected changes against the parent.")
    risk: str = Field(default="", description="What could go wrong, e.g. low, high, or a sentence.")
    tags: list[str] = Field(default_factory=list, description="Words to find it by.")
    base: Id | None = Field(default=None, description="The frozen code it builds on; without it the base of golf.yaml.")
    depends_on: list[str] = Field(default_factory=list, description="Plans whose diffs are applied before this one's.")
    conflicts_with: list[str] = Field(default_factory=list, description="Plans it can't be stacked with.")
    diffs: list[DiffFile] = Field(default_factory=list, description="The changes, in order.")
    fallback: Annotated[list[DiffFile], BeforeValidator(_alternative)] = Field(
        default_factory=list, description="What to try if the first form fails.", json_schema_extra=_fallback_schema
    )
    seeds: Seeds | None = Field(default=None, description="Seeds in order of use; without them those of golf.yaml.")
    gates: Annotated[dict[int, GateDiffFile], BeforeValidator(_keys)] = Field(
        default_factory=dict, description="Differences from the gates of golf.yaml, by gate number."
    )
    not_a_repeat: str = Field(
        default="", description="What makes it different from the recorded failures it resembles (golfctl fail list)."
    )


class RulesFile(_Model):
    """Limits and score."""

    artifact_cap_bytes: int = Field(default=16_000_000, ge=1, description="Code + model, decimal bytes.")
    score: str = Field(default="val_bpb", description="The deciding metric.")
    score_label: str = Field(
        default="final_sliding_window_exact", description="Name of the final log line that carries the score."
    )
    record_margin_nats: float = Field(default=0.005, ge=0, description="What a record must beat the standing one by.")
    alpha: float = Field(default=0.01, gt=0, lt=0.5, description="One-sided error rate of the last gate.")


class HostFile(_Model):
    """A machine that runs things."""

    kind: Literal["local", "ssh", "slurm"] = Field(default="local", description="How it is reached.")
    slots: int = Field(
        default=1, ge=1, le=10_000, description="Processes that may run at once: GPUs, or shares of a CPU."
    )
    usd_per_hour: float = Field(default=0.0, ge=0, description="Price while it is held.")
    root: str = Field(default="", description="Its folder for bundles and runs; local: .golfctl/host, ssh: ~/golfctl.")
    gpu: str = Field(default="", description="Model of its GPUs, for example H100; empty: slots are shares of the CPU.")
    address: str = Field(default="", description="Name or address for ssh, or a Host of ~/.ssh/config.")
    user: str = Field(default="", description="Login name; empty: as ~/.ssh/config says.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Port; null: as ~/.ssh/config says.")
    identity: str = Field(default="", description="Private key file; empty: as ~/.ssh/config and the agent say.")
    jump: str = Field(default="", description="Hosts to go through, separated by commas, as ssh -J takes them.")
    python: str = Field(default="python3", description="Python >= 3.9 on it.")
    cache: str = Field(default="", description="Folder for compile caches on a disk of its own.")
    leases: str = Field(default="", description="Folder shared by all who use its GPUs; empty: ROOT/leases.")
    data: str = Field(default="", description="Folder with the data shards; runs get it as the base's data variable.")
    manifest: str = Field(default="", description="JSON file in the campaign that lists the shards.")
    persistent: bool = Field(default=False, description="Whether ROOT survives the machine's stop.")
    abandon_after_s: float | None = Field(
        default=None, ge=1, description="Seconds without a run and without contact until on_idle runs; null: never."
    )
    on_idle: str = Field(default="", description="Shell command run there once it was abandoned.")
    on_release: str = Field(default="", description="Shell command run here to hand the machine back.")
    lost_after_s: float = Field(
        default=600.0, ge=1, description="Seconds without an answer until its runs count as lost."
    )
    secret_env: list[SettingName] = Field(
        default_factory=list, description="Variables of this shell handed to runs, never recorded."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Further settings of its kind.")


class BudgetFile(_Model):
    """Money."""

    usd: float | None = Field(default=None, ge=0, description="Most dollars this campaign may spend; null: no cap.")
    plan_usd: float | None = Field(
        default=None, ge=0, description="Most dollars the own runs of one plan may cost; null: no cap."
    )
    gate_usd: Annotated[dict[int, Annotated[float, Field(ge=0)]], BeforeValidator(_keys)] = Field(
        default_factory=dict, description="Most dollars the own runs of one plan may cost at a gate, by gate number."
    )


class CampaignFile(_Model):
    """golf.yaml: what holds for every plan of a campaign."""

    name: Id = Field(description="The campaign's name.")
    preset: str = Field(default="", description="The preset it was made from.")
    base: Id | None = Field(default=None, description="Base of plans that name none.")
    host: str = Field(default="local", description="Alias of the host used when none is named.")
    seeds: Seeds = Field(default_factory=lambda: [1337, 42, 2025], description="Seeds of plans that declare none.")
    rules: RulesFile = Field(default_factory=RulesFile, description="Limits and score.")
    gates: Annotated[dict[int, GateFile], BeforeValidator(_keys), Field(min_length=1)] = Field(
        description="Gates by number."
    )
    hosts: dict[Id, HostFile] = Field(default_factory=dict, description="Machines by alias.")
    budget: BudgetFile = Field(default_factory=BudgetFile, description="Money.")


class VarsFile(_Model):
    """Variables of a base that golfctl or its host fills."""

    seed: SettingName = Field(default="SEED", description="Carries the seed.")
    iterations: SettingName = Field(default="ITERATIONS", description="Carries the number of steps.")
    seconds: SettingName = Field(default="MAX_WALLCLOCK_SECONDS", description="Carries the training time in seconds.")
    data: SettingName = Field(default="DATA_PATH", description="Carries the data folder.")
    out: SettingName = Field(default="OUT_DIR", description="Carries the run folder.")


class BaseFile(_Model):
    """bases/NAME.yaml: frozen code that plans build on, and how to launch it."""

    name: Id = Field(description="The base's name; the file is called NAME.yaml.")
    kind: Literal["trainer", "script"] = Field(description="The bundled trainer, or a single-file script.")
    snapshot: str = Field(description="Its code, NAME.tar.gz in the same folder.")
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = Field(description="Tree hash of the snapshot.")
    launch: list[str] = Field(min_length=1, description="Command of a run; {python} and {processes} are filled in.")
    launch_many: list[str] = Field(min_length=1, description="The same for more than one process.")
    vars: VarsFile = Field(default_factory=VarsFile, description="Variables golfctl or its host fills.")
    artifact: list[str] = Field(min_length=1, description="Globs of the model files a run leaves.")
    code: list[str] = Field(min_length=1, description="Globs of the files that count as code.")
    score_label: str = Field(description="Name of the final log line that carries the score.")
    settings: Settings = Field(default_factory=dict, description="Settings of the base itself.")
    protected: list[str] = Field(default_factory=list, description="Globs of the judge: no patch may touch them.")
    env_calls: list[str] = Field(default_factory=list, description="Functions that declare a setting by its name.")
    env: list[SettingName] = Field(
        default_factory=list, description="Variables read in a way the syntax tree can't show."
    )


def plan_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of plan files, for editors."""
    schema = PlanFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
