"""Chat templates of our own, in the manner of models that reason or take few kinds of message."""

from __future__ import annotations

_TURNS = "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ m.content ~ '<|end|>' }}{% endfor %}"
_ANSWER = "{% if add_generation_prompt %}<|assistant|>"

# The model opens the block itself, unless an argument has the template write an empty one.
HYBRID = (
    f"{_TURNS}{_ANSWER}"
    "{% if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# The template opens the block; nothing turns it off.
OPEN = f"{_TURNS}{_ANSWER}{{{{ '<think>\n' }}}}{{% endif %}}"
# The model opens the block itself; nothing turns it off.
ALWAYS = (
    "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ m.content.split('</think>')[-1] ~ "
    f"'<|end|>' }}}}{{% endfor %}}{_ANSWER}{{% endif %}}"
)
# An argument changes the system text, too.
SYSTEM_SWITCH = (
    "{% if thinking is defined and thinking %}<|system|>Think.<|end|>{% endif %}"
    f"{_TURNS}{_ANSWER}{{% if thinking is defined and thinking %}}"
    "{{ '[THINK]' }}{% endif %}{% endif %}"
)
CHANNEL_MARKS = ("<|start|>", "<|channel|>", "<|message|>", "<|return|>", "<|call|>")
CHANNELS = (
    "{% for m in messages %}{{ '<|start|>' ~ m.role ~ '<|message|>' ~ m.content ~ '<|end|>' }}"
    "{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if 1 == 0 %}<|channel|>{% endif %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
OPEN_CHANNEL = CHANNELS.replace(
    "<|start|>assistant{%", "<|start|>assistant<|channel|>analysis<|message|>{%"
)
_REFUSE = "{{ raise_exception('System role not supported') }}"
NO_SYSTEM = (
    f"{{% for m in messages %}}{{% if m.role == 'system' %}}{_REFUSE}{{% endif %}}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "{{ '<|' ~ m.role ~ '|>' ~ m.content | trim ~ '<|end|>' }}{% endfor %}"
    f"{_ANSWER}{{% endif %}}"
)
# A system text comes first, and then both speak in turns, as Mistral's templates want it.
TURNS = (
    "{% set said = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% for m in said %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('After the optional system message, roles must alternate') }}{% endif %}"
    f"{{% endfor %}}{_TURNS}{_ANSWER}{{% endif %}}"
)
ONE_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    f"{_REFUSE}{{% endif %}}"
    "{{ '<|' ~ m.role ~ '|>' ~ m.content | trim ~ '<|end|>' }}{% endfor %}"
    f"{_ANSWER}{{% endif %}}"
)
DROPS_LATER_SYSTEM = (
    "{% for m in messages %}{% if m.role in ('user', 'assistant') or (m.role == 'system' and "
    "loop.first) %}{{ '<|' ~ m.role ~ '|>' ~ m.content | trim ~ '<|end|>' }}{% endif %}"
    f"{{% endfor %}}{_ANSWER}{{% endif %}}"
)
LAST_ONLY = f"{{{{ '<|user|>' ~ messages[-1].content ~ '<|end|>' }}}}{_ANSWER}{{% endif %}}"
# What is said turns reasoning off.
SAID_SWITCH = (
    "{% set said = messages | map(attribute='content') | join %}"
    f"{_TURNS}{_ANSWER}{{% if '/no_think' in said %}}{{{{ '<think></think>' }}}}"
    "{% else %}{{ '<think>\n' }}{% endif %}{% endif %}"
)
