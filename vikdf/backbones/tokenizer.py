"""A byte-level BPE tokenizer trained on a corpus, in Hugging Face's own form: any text can be said with it, nothing is unknown."""

from collections.abc import Iterable


def train(texts: Iterable[str], vocabulary: int, specials: dict, template: str | None = None, **settings):
    """Trains a PreTrainedTokenizerFast; `specials` maps roles (pad_token, eos_token ...) to tokens.

    `template` says where specials go around a text ("<s> $A </s>"). The end token gets the highest id: CLIP's text tower
    finds the end of a text by it.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    extra = specials.get("extra_special_tokens", [])
    single = [token for role, token in specials.items() if role not in ("eos_token", "extra_special_tokens")]
    names = [*single, *extra, specials["eos_token"]]
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names])
    if template:
        ids = [(name, tokenizer.token_to_id(name)) for name in names]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials, **settings)
