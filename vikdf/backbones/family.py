"""How the small language models of each family are built and spoken to: configuration, control tokens, chat template.

In: the name of a family that transformers knows. Out: FAMILIES[name], for vikdf.backbones.language. Each has what tells its
family from the others at 7B: llama full attention heads; qwen2 (Qwen2.5) biases on queries, keys and values, shared key heads
and ChatML; mistral shared key heads and [INST].
"""

from dataclasses import dataclass

ALTERNATE = (
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must take turns, the user first') }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    specials: dict[str, str]  # role of a token -> token
    extra: list[str]  # control tokens without a role
    start: str  # what a dialogue begins with
    user: tuple[str, str]  # what stands before and behind a user's turn
    assistant: tuple[str, str]
    template: str  # the same for messages, as Jinja
    share: int  # attention heads that read the same keys

    def around(self, turns: int) -> list[str]:
        """The text before the first of `turns` turns, between each and the next, and behind the last."""
        sides = [(self.user, self.assistant)[i % 2] for i in range(turns)]
        before = [self.start, *(behind for _, behind in sides)]
        return [text + opened for text, (opened, _) in zip(before, [*sides, ("", "")], strict=True)]


FAMILIES = {
    "llama": Family(
        specials={"pad_token": "<|pad|>", "bos_token": "<|start|>", "eos_token": "<|end|>"},
        extra=["<|user|>", "<|assistant|>", "<|system|>"],
        start="<|start|>",
        user=("<|user|>", "<|end|>"),
        assistant=("<|assistant|>", "<|end|>"),
        template="<|start|>{% for message in messages %}"
        "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
        share=1,
    ),
    "qwen2": Family(
        specials={"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
        extra=["<|im_start|>"],
        start="",
        user=("<|im_start|>user\n", "<|im_end|>\n"),
        assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
        template="{% for message in messages %}"
        "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        share=2,
    ),
    "mistral": Family(
        specials={"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"},
        extra=["[INST]", "[/INST]"],
        start="<s>",
        user=("[INST]", "[/INST]"),
        assistant=("", "</s>"),
        template="{{ bos_token }}{% for message in messages %}" + ALTERNATE + "{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + '[/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}"
        "{% endfor %}",
        share=2,
    ),
}


def named(name: str) -> Family:
    if name not in FAMILIES:
        raise ValueError(f"family is {name!r}: expected one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
