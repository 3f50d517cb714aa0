"""The fields of an adapter_config.json: which are read, which change nothing, and that every other one is refused.

The lists follow `peft.LoraConfig` (0.21). `peft` ignores a field that it does not know, with a warning; here it is an
error, because a later version may compute something else by it.
"""

from __future__ import annotations

from tunix_rt.models import adapter_targets
from tunix_rt.models.families.fields import Fields

READ = frozenset(
    """peft_type r lora_alpha lora_dropout use_rslora init_lora_weights base_model_name_or_path revision
    modules_to_save ensure_weight_tying""".split()
) | frozenset(adapter_targets.READ)
UNSUPPORTED = frozenset(
    """
    alora_invocation_tokens arrow_config bias kasa_config layer_replication lora_bias monteclora_config
    target_parameters trainable_token_indices use_bdlora use_dora use_qalora velora_config
    """.split()
)
"""Fields that change what is computed, or what is in the file, beyond plain LoRA."""
WITHOUT_EFFECT = frozenset(
    """
    task_type auto_mapping peft_version inference_mode runtime_config
    fan_in_fan_out
    loftq_config eva_config corda_config lora_ga_config qalora_group_size
    megatron_config megatron_core
    enable_lora merge_weights
    """.split()
)
"""By line: how it is loaded; how a matrix lies, which the family says; how it was initialised (`init_lora_weights` is
read); where its layers are computed; of the first versions of `peft`."""
PLAIN = (True, False, None, "gaussian", "orthogonal", "eva")
"""Values of `init_lora_weights` that leave the base as it is: A and B are in the file, whatever they were at first."""
CONVERTED = ("pissa", "olora", "corda", "lora_ga")
"""Values, or their beginnings, with which `peft` takes the first B A away from the base."""
NOTHING: tuple[object, ...] = (None, False, "none", [], {})


def check_fields(fields: Fields) -> None:
    """Raise ModelError naming a field that changes the mathematics and is not supported, or is not known."""
    if fields.config.get("peft_type") != "LORA":
        raise fields.refuse("peft_type", f"{fields.config.get('peft_type')!r} is not supported, only 'LORA'")
    for name, value in fields.config.items():
        if name in UNSUPPORTED and value not in NOTHING:
            raise fields.refuse(name, f"{value!r} is not supported")
        if name not in READ | UNSUPPORTED | WITHOUT_EFFECT and value not in NOTHING:
            raise fields.refuse(name, f"{value!r}: not a field known here, so what it changes cannot be computed")
    dropout = fields.config.get("lora_dropout")
    if dropout is not None and not (type(dropout) in (int, float) and 0 <= dropout <= 1):
        raise fields.refuse("lora_dropout", f"{dropout!r}, expected a number from 0 to 1")
    _check_initialisation(fields)


def _check_initialisation(fields: Fields) -> None:
    """Refuse an adapter that belongs to another base than the one it names."""
    value = fields.config.get("init_lora_weights", True)
    kind = value.lower() if isinstance(value, str) else value
    if kind in PLAIN:
        return
    if not isinstance(kind, str) or not kind.startswith((*CONVERTED, "loftq")):
        raise fields.refuse("init_lora_weights", f"{value!r} is not supported")
    way = (
        "in peft, save_pretrained(FOLDER, path_initial_model_for_weight_conversion=INITIAL) makes a plain adapter of it"
        if kind.startswith(CONVERTED)
        else "in peft, merge_and_unload() makes a whole model of the two, which model.source.path takes"
    )
    raise fields.refuse(
        "init_lora_weights",
        f"{value!r} changes the base's weights, so the adapter does not fit the base as it is; {way}",
    )
