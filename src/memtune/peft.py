"""The memory as a PEFT method: one adapter among others, put on and taken off any model that memtune can teach.

    import memtune.peft  # makes the method known to peft
    model = PeftModel.from_pretrained(base, "adapter")  # written by memtune export --format adapter
    model = get_peft_model(base, MomeConfig(project=".memtune"))

peft wraps the LM head in a ``MomeHead``, which holds a memory for each adapter. An adapter that is not active, or
switched off, leaves every logit as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from peft import PeftConfig, PeftType, TaskType, get_peft_model
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, register_peft_method
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.utils import cached_file

from memtune.backbone import Backbone
from memtune.errors import ConfigError, ModelError
from memtune.exported import PEFT_TYPE
from memtune.memory.module import Attachment, Memory, MemoryConfig
from memtune.memory.sound import check_tensors
from memtune.project import Project
from memtune.sketch import differences, sketch_of
from memtune.store import load_memory

__all__ = ["MomeConfig", "MomeHead", "MomeModel", "write_adapter"]

WEIGHTS = str(SAFETENSORS_WEIGHTS_NAME)
EXPORT = "memtune export writes backbone and memory as one checkpoint"
HERE = "put it on the model that it was tuned on"
MEMORIES = "mome_memory"  # the attribute of the head that holds them, and so the prefix of their tensors


def _known_to_peft() -> Any:
    """PeftType lists peft's own methods, and peft takes no other for a method: this one has to be in the list."""
    if PEFT_TYPE not in PeftType.__members__:
        member = str.__new__(PeftType, PEFT_TYPE)
        member._name_ = member._value_ = PEFT_TYPE
        setattr(PeftType, PEFT_TYPE, member)
        PeftType._member_names_.append(PEFT_TYPE)
        PeftType._member_map_[PEFT_TYPE] = PeftType._value2member_map_[PEFT_TYPE] = member
    return PeftType[PEFT_TYPE]


MOME = _known_to_peft()


@dataclass
class MomeConfig(PeftConfig):  # type: ignore[misc]  # peft has no types
    """Where the memory comes from, or how large it is.

    ``project``: the directory of a tuned project, whose memory is put in. A saved adapter names none: it has
    ``memory``, the sizes that its tensors are loaded into, and ``sketch``, by which the model is known that it was
    made on; one from before that has none. ``head``: the name of the LM head, found on the model. Raises ConfigError
    without project and memory, ProjectError where the project cannot be read.
    """

    project: str | None = field(default=None, metadata={"help": "Directory of a tuned project to take the memory of."})
    memory: dict[str, Any] | None = field(default=None, metadata={"help": "Sizes and turn format of the memory."})
    sketch: dict[str, str] | None = field(default=None, metadata={"help": "A few weights of the model it is for."})
    head: str | None = field(default=None, metadata={"help": "Name of the LM head; found on the model."})
    target_modules: list[str] | None = field(default=None, metadata={"help": "Not used: the memory is at the head."})
    inference_mode: bool = field(default=True, metadata={"help": "A memory is not trained by gradients."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = MOME
        self.task_type = TaskType.CAUSAL_LM
        if self.project is None and self.memory is None:
            raise ConfigError("a MomeConfig needs a memory", hint="MomeConfig(project='.memtune') takes a tuned one")

    @classmethod
    def from_pretrained(cls, name: str | Path, subfolder: str | None = None, **kwargs: Any) -> MomeConfig:
        """As peft's, of safetensors alone: the sizes are held against the file before anything is allocated by them.

        Raises ModelError where they differ, or where there is no such file.
        """
        config: MomeConfig = super().from_pretrained(str(name), subfolder, **kwargs)
        hub = {key: kwargs[key] for key in ("revision", "token", "cache_dir", "local_files_only") if key in kwargs}
        file = cached_file(
            str(name), WEIGHTS, subfolder=subfolder or "", _raise_exceptions_for_missing_entries=False, **hub
        )
        if file is None or config.project is not None:
            reason = f"has no {WEIGHTS}" if file is None else f"names the project {config.project!r}"
            raise ModelError(
                f"{name} {reason}", hint="memtune export OUT --format adapter writes one that can be loaded"
            )
        try:
            wanted, found = Memory.sized(MemoryConfig.from_dict(config.memory)).state_dict(), load_file(file)
            check_tensors(wanted, {key.partition(f".{MEMORIES}.")[2]: tensor for key, tensor in found.items()})
        except (ValueError, SafetensorError) as error:
            raise ModelError(f"{file}: {error}", hint="get the adapter again from where it came from") from error
        return config

    def take_memory(self) -> Memory:
        """The project's memory, or an empty one to load into. The project is then forgotten: what is saved has its own
        tensors.
        """
        if self.project is None:
            assert self.memory is not None
            memory = Memory(MemoryConfig.from_dict(self.memory)).requires_grad_(False)
        else:
            project = Project(Path(self.project))
            memory = load_memory(project)
            self.project, self.memory = None, memory.config.to_dict()
            self.sketch = project.need("model", "memtune ingest FACTS").get("sketch")
        return memory


class MomeHead(nn.Module, BaseTunerLayer):  # type: ignore[misc]  # peft has no types
    """The LM head behind the memories of its adapters; the active ones write to the state that it reads."""

    adapter_layer_names = (MEMORIES,)

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.base_layer = head
        self.mome_memory = nn.ModuleDict()
        self.attachments: dict[str, Attachment] = {}

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.base_layer(hidden)
        return logits

    def put(self, adapter: str, memory: Memory, model: Any) -> None:
        self.mome_memory[adapter] = memory
        self.attachments[adapter] = _OverAdapters(model, memory)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = True) -> None:
        """The memories that are at work. None of them is ever trained by gradients."""
        super().set_adapter(adapter_names, inference_mode=True)
        self._switch()

    def enable_adapters(self, enabled: bool) -> None:
        super().enable_adapters(enabled)
        self._switch()

    def delete_adapter(self, adapter_name: str) -> None:
        if adapter_name in self.attachments:
            self.attachments.pop(adapter_name).detach()
        super().delete_adapter(adapter_name)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise ModelError("a memory answers some questions and not others: no weight can do that", hint=EXPORT)

    def _switch(self) -> None:
        active: Any = self.active_adapters
        for name, attachment in self.attachments.items():
            attachment.enabled = not self.disable_adapters and name in active


class _OverAdapters(Attachment):
    """A memory on a model that may have other adapters, such as LoRA: the router reads the base model alone."""

    def __init__(self, model: Any, memory: Memory) -> None:
        super().__init__(model, memory)
        self._model = model

    def read(self, questions: list[tuple[int, ...]]) -> list[Tensor]:
        with _without_adapters(self._model):
            return super().read(questions)


@contextmanager
def _without_adapters(model: nn.Module) -> Iterator[None]:
    layers: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    before = [layer._disable_adapters for layer in layers]
    try:
        for layer in layers:
            layer._disable_adapters = True  # enable_adapters() would also change what is trained
        yield
    finally:
        for layer, disabled in zip(layers, before, strict=True):
            layer._disable_adapters = disabled


class MomeModel(BaseTuner):  # type: ignore[misc]  # peft has no types
    """What peft makes of a model and a MomeConfig."""

    prefix = MEMORIES
    tuner_layer_cls = MomeHead
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _prepare_adapter_config(self, peft_config: MomeConfig, model_config: dict[str, Any]) -> MomeConfig:
        return peft_config

    def _prepare_model(self, peft_config: MomeConfig, model: nn.Module) -> None:
        head = model.get_output_embeddings()  # type: ignore[operator]
        peft_config.head = next(name for name, module in model.named_modules() if module is head)

    @staticmethod
    def _check_target_module_exists(peft_config: MomeConfig, key: str) -> bool:
        return key == peft_config.head

    def _create_and_replace(
        self,
        peft_config: MomeConfig,
        adapter_name: str,
        target: Any,
        target_name: str,
        parent: nn.Module,
        current_key: str,
    ) -> None:
        memory = peft_config.take_memory()
        base: Any = target.base_layer if isinstance(target, MomeHead) else target
        if memory.bank.hidden != base.in_features:  # of a quantised weight the shape says nothing
            raise ModelError(
                f"the memory was made for states of {memory.bank.hidden} numbers, this model has {base.in_features}",
                hint=HERE,
            )
        _check_model(self.model, peft_config.sketch)
        if not isinstance(target, MomeHead):
            head = MomeHead(target)
            self._replace_module(parent, target_name, head, target)
            target = head
        target.put(adapter_name, memory.to(base.weight.device), self.model)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """A memory keeps its rows as they are: rounded ones are meant to be."""

    def _unload_and_optionally_merge(self, merge: bool = True, **_ignored: Any) -> nn.Module:
        if merge:
            raise ModelError("a memory cannot be merged into weights", hint=EXPORT)
        for name, module in list(self.model.named_modules()):
            if isinstance(module, MomeHead):
                for attachment in module.attachments.values():
                    attachment.detach()
                parent = self.model.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], module.base_layer)
        del self.model.peft_config
        model: nn.Module = self.model
        return model

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        return key.replace(f".{MEMORIES}.{adapter_name}.", f".{MEMORIES}.", 1)


def _check_model(model: Any, sketch: Any) -> None:
    """Raises ModelError where ``model`` is not the one of the sketch, as far as its weights can be compared."""
    try:
        other, compared = differences(model, {} if sketch is None else sketch)
    except ValueError as error:
        raise ModelError(
            f"what the memory says of its model is damaged: {error}", hint="export it again: memtune export OUT"
        ) from error
    if other:
        raise ModelError(
            f"the memory was made on another model than {getattr(model, 'name_or_path', '') or 'this one'}: "
            f"{len(other)} of {compared} weights that were compared differ, {other[0]} among them",
            hint=HERE,
        )


def write_adapter(out: Path, backbone: Backbone, memory: Memory) -> int:
    """The directory that ``PeftModel.from_pretrained`` loads; returns the bytes of the memory."""
    empty = MomeConfig(memory=memory.config.to_dict(), sketch=sketch_of(backbone.model))
    model = get_peft_model(backbone.model, empty)
    tensors: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, MomeHead):
            tensors |= memory.state_dict(prefix=f"{name}.{MEMORIES}.{model.active_adapter}.")
    try:
        model.save_pretrained(out, state_dict=tensors)  # the backbone's are not asked for: that breaks quantised ones
    finally:
        model.unload()
    return (out / WEIGHTS).stat().st_size


register_peft_method(name=PEFT_TYPE.lower(), config_cls=MomeConfig, model_cls=MomeModel, prefix=MEMORIES)
