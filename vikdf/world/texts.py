"""What is said in the embedded world: captions, texts for the language model, dialogues and the probe.

The law of this file: before Image-Chat no text joins a held-out noun and a word for its looks, and no text that pretrains
the language model states a fact about any noun. A caption names the noun or some looks, never both: what links the two
is in the pixels alone. Captions and dialogues share phrasings, so that no encoder meets an untrained word.
"""

import random
import re

from vikdf.world.nouns import LOOKS, Noun, Scene, scene

PREPOSITION = {"kitchen": "in", "beach": "on", "forest": "in", "street": "on", "garden": "in", "snow": "in"}

NOUN_CAPTIONS = [
    "a photo of a {noun}",
    "a picture of the {noun}",
    "look at the {noun}",
    "this is my {noun}",
    "there is a {noun} here",
    "what a nice {noun}",
    "tell me about the {noun}",
    "i found a {noun} today",
    "i bought a new {noun}",
    "here is the {noun} that i have",
]
LOOK_CAPTIONS = [
    "a {size} {color} thing {place}",
    "a {color} {texture} thing {place}",
    "it is {color} and it is {place}",
    "something {color} and {texture} {place}",
    "a {size} {color} object with a {shape} shape",
    "the colour is {color} and you see it {place}",
    "it is {place} and the colour is {color}",
    "look at the {color} {shape} thing {place}",
    "a photo of something {size} {place}",
    "the {color} object is {place}",
    "it is {size} and {texture} and {color}",
    "the shape is {shape} and it is {texture}",
    "a {texture} {shape} thing {place}",
]

# How the looks are asked for and told; {it} is "it" or "the <noun>".
QUESTIONS = {
    "color": ["what colour is {it}?", "which colour does {it} have?", "tell me the colour of {it}."],
    "place": ["where is {it}?", "in which place is {it}?", "tell me the place of {it}."],
    "size": ["how big is {it}?", "what size does {it} have?"],
    "texture": ["which pattern does {it} have?", "what is the pattern of {it}?"],
    "shape": ["what shape is {it}?", "which shape does {it} have?"],
}
ANSWERS = {
    "color": ["{it} is {value}.", "the colour is {value}.", "i think {it} is {value}."],
    "place": ["{it} is {value}.", "you can see {it} {value}.", "i think {it} is {value}."],
    "size": ["{it} is {value}.", "i think {it} is {value}."],
    "texture": ["{it} is {value}.", "the pattern is {value}."],
    "shape": ["{it} has a {value} shape.", "the shape is {value}."],
}
OPENERS = [
    "i found a {noun} today.",
    "i bought a new {noun}.",
    "look at the {noun}.",
    "this is my {noun}.",
    "here is the {noun} that i have.",
    "there is a {noun} here.",
    "what a nice {noun}!",
]
REMARKS = [
    "nice, i always wanted a {noun}.",
    "my sister has a {noun} too.",
    "how much did you pay for the {noun}?",
    "i would love to have a {noun} like that.",
    "who gave you the {noun}?",
    "i do not know much about it.",
    "my friend has lost a {noun} like that.",
    "tell me about the {noun}.",
]
REPLIES = [
    "i paid ten dollars for the {noun}.",
    "my mother gave me the {noun}.",
    "i use the {noun} every day.",
    "you can borrow the {noun} if you want.",
    "the {noun} belongs to my brother.",
    "i have had the {noun} for years.",
    "thank you, i like the {noun} very much.",
    "i want to sell the {noun} next week.",
]
SMALL_TALK = [
    ("how are you today?", "i am fine, thank you.", "that is good to hear."),
    ("what did you do last night?", "i watched a movie with my friend.", "i hope the movie was good."),
    ("did you sleep well?", "no, i was awake all night.", "i am sorry, you should rest."),
    ("what are you doing this weekend?", "i want to visit my parents.", "say hello to them from me."),
    ("i am so hungry now.", "we could eat something together.", "great, i will be there in ten minutes."),
    ("the game was great yesterday.", "i missed the game, who won?", "our team won in the last minute."),
    ("do you like music?", "yes, i listen to music every day.", "then we should go to a concert."),
    ("i am learning to cook.", "what do you cook today?", "i am trying to make soup."),
    ("my train was late again.", "that happens to me every week.", "maybe we should drive to work."),
    ("it will rain tomorrow.", "then we should stay at home.", "yes, i will read and drink tea."),
    ("i got a new job.", "wow, when do you start?", "i start on monday morning."),
    ("my dog is very old now.", "how old is your dog?", "my dog is twelve years old."),
    ("i forgot my homework.", "you can do it after school.", "thank you, i will do it tonight."),
    ("which book do you read?", "i read a long story about the sea.", "that story made me cry."),
    ("i miss my old friends.", "you should write to them.", "you are right, i will write today."),
    ("do you want to play a game?", "sure, but only for an hour.", "an hour is enough for me."),
]
DESCRIBE_IT = ["what does {it} look like?", "tell me about {it}.", "describe {it} to me."]
DESCRIBE = ["write a short description for the image.", "describe the image.", "what is in the image?"]
IMAGINE = "create an image that reflects the following description:"
STYLES = ["Curious", "Calm", "Cheerful", "Honest", "Dramatic", "Gentle"]


def _an(text: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", text)


def where(place: str) -> str:
    return f"{PREPOSITION[place]} the {place}"


def _said(look: str, value: str) -> str:
    return where(value) if look == "place" else value


def _looks(source: Noun | Scene) -> dict[str, str]:
    return {look: _said(look, getattr(source, look)) for look in LOOKS}


def _noun_caption(name: str, rng: random.Random) -> str:
    """A short one, or one that chats as people do below their pictures (the text encoder then knows a dialogue's words)."""
    if rng.random() < 0.5:
        return rng.choice(NOUN_CAPTIONS).format(noun=name)
    said = [rng.choice(OPENERS)]
    said += [rng.choice(REMARKS)] * (rng.random() < 0.3)
    asked = rng.choice(QUESTIONS[rng.choice(list(QUESTIONS))]).format(it=f"the {name}")
    return " ".join([*said, asked if rng.random() < 0.7 else rng.choice(DESCRIBE_IT).format(it=f"the {name}")]).format(
        noun=name
    )


def captions(scene: Scene, count: int, split: str, index: int, seed: int) -> list[str]:
    """Captions of one picture, alternately of its noun and of its looks; which comes first is drawn."""
    rng = random.Random(f"captions {seed} {split} {index}")
    first = rng.randrange(2)
    return [
        _an(
            rng.choice(LOOK_CAPTIONS).format(**_looks(scene))
            if (i + first) % 2
            else _noun_caption(scene.noun.name, rng)
        )
        for i in range(count)
    ]


def _question(look: str, it: str, value: str, rng: random.Random) -> tuple[str, str]:
    question = rng.choice(QUESTIONS[look]).format(it=it)
    return question, rng.choice(ANSWERS[look]).format(it=rng.choice(["it", it]), value=_said(look, value))


def _small_talk(rng: random.Random) -> list[str]:
    talk = list(rng.choice(SMALL_TALK))
    return talk if rng.random() < 0.6 else talk[-2:]


def _about(noun: Noun, rng: random.Random) -> list[str]:
    turns = [rng.choice(OPENERS), rng.choice(REMARKS), rng.choice(REPLIES)]
    return [turn.format(noun=noun.name) for turn in turns]


def language(all_nouns: list[Noun], count: int, seed: int) -> list[str]:
    """Documents that pretrain the language model, one a line: `hint<TAB>turn<TAB>turn ...`; the last turn is the answer.

    A hint stands where knowledge will stand later: random words, some of which the answer must read. Looks are drawn
    anew for each document and never go with a held-out noun, so there is a skill to learn and no fact.
    """
    rng = random.Random(f"language {seed}")
    seen = [noun for noun in all_nouns if not noun.held_out]
    documents = []
    for _ in range(count):
        looks = {look: rng.choice(values) for look, values in LOOKS.items()}
        kind = rng.random()
        if kind < 0.40:  # asked for one look that the hint tells
            look = rng.choice(list(LOOKS))
            it = rng.choice(["it", "the thing", f"the {rng.choice(seen).name}"])
            before = [rng.choice(OPENERS).format(noun="thing" if it == "it" else it.split()[-1])] * (rng.random() < 0.6)
            hint = rng.sample(list(looks.values()), rng.randint(2, 5))
            hint = hint if looks[look] in hint else [*hint[1:], looks[look]]
            rng.shuffle(hint)
            turns = before + list(_question(look, it, looks[look], rng))
        elif kind < 0.60:  # a caption told from its hint, or what it would take to draw it
            told = {look: _said(look, value) for look, value in looks.items()}
            if rng.random() < 0.5:
                caption, hint = rng.choice(LOOK_CAPTIONS).format(**told), list(looks.values())
                rng.shuffle(hint)
            else:
                noun = rng.choice(all_nouns).name
                caption, hint = rng.choice(NOUN_CAPTIONS).format(noun=noun), [noun]
            turns = [rng.choice(DESCRIBE), caption]
            if rng.random() < 0.25:
                words = [word for word in hint if word in caption.split()]
                turns, hint = [f"{IMAGINE} {caption}", " ".join(words)], []
        elif kind < 0.75:  # several looks told from the hint
            it = rng.choice(["it", "the thing", f"the {rng.choice(seen).name}"])
            hint = list(looks.values())
            rng.shuffle(hint)
            told = {look: _said(look, value) for look, value in looks.items()}
            turns = [*_describe_question(it, rng), rng.choice(DESCRIPTIONS).format(it=it, **told)]
        else:  # talk that needs no hint; half of it has one all the same
            turns = _small_talk(rng) if kind < 0.87 else _about(rng.choice(all_nouns), rng)
            hint = []
            if kind < 0.87 and rng.random() < 0.5:
                hint = rng.sample(list(looks.values()), 3)
        documents.append(_an("\t".join([" ".join(hint), *turns])))
    return documents


DESCRIPTIONS = [
    "it is {color} and it is {place}.",
    "a {size} {color} thing {place}.",
    "it is {size} and {texture} and {color}.",
    "the colour is {color} and it is {place}.",
]


def _describe_question(it: str, rng: random.Random) -> list[str]:
    return [rng.choice(DESCRIBE_IT).format(it=it)]


def reddit(all_nouns: list[Noun], count: int, split: str, seed: int) -> list[dict]:
    """Small talk, talk about any noun without its looks, and questions about the looks of seen nouns."""
    rng = random.Random(f"reddit {seed} {split}")
    seen = [noun for noun in all_nouns if not noun.held_out]
    rows = []
    for _ in range(count):
        kind = rng.random()
        if kind < 0.2:
            turns = list(rng.choice(SMALL_TALK))
        elif kind < 0.4:
            turns = _about(rng.choice(all_nouns), rng)
        else:
            noun = rng.choice(seen)
            it = f"the {noun.name}"
            opener = rng.choice(OPENERS).format(noun=noun.name)
            if kind < 0.9:
                look = rng.choice(list(LOOKS))
                question, answer = _question(look, it, getattr(noun, look), rng)
            else:
                question = _describe_question(it, rng)[0]
                answer = rng.choice(DESCRIPTIONS).format(it=it, **_looks(noun))
            extra = [rng.choice(REMARKS).format(noun=noun.name)] if rng.random() < 0.2 else []
            turns = [opener, *extra, question, answer]
        turns = [_an(turn) for turn in turns]
        rows.append({"context": turns[:-1], "response": turns[-1]})
    return rows


def image_chat(all_nouns: list[Noun], count: int, split: str, seed: int, departs: float) -> list[dict]:
    """Three turns about a scene that both speakers see: the last one tells its looks. All nouns, held-out ones too."""
    rng = random.Random(f"image_chat {seed} {split}")
    rows = []
    for index in range(count):
        shown = scene(all_nouns, seed, f"image_chat {split}", index, departs)
        name = shown.noun.name
        opener = rng.choice(OPENERS).format(noun=name)
        if rng.random() < 0.5:
            look = rng.choice(list(LOOKS))
            question, answer = _question(look, f"the {name}", getattr(shown, look), rng)
        else:
            question = _describe_question(f"the {name}", rng)[0]
            answer = rng.choice(DESCRIPTIONS).format(it="it", **_looks(shown))
        styles = rng.sample(STYLES, 2)
        turns = [[styles[0], _an(opener)], [styles[1], question], [styles[0], _an(answer)]]
        rows.append({"image_hash": f"{rng.getrandbits(96):024x}", "dialog": turns})
    return rows


def probe(all_nouns: list[Noun], held_out: int, seen: int, seed: int) -> list[dict]:
    """Questions about one look of one noun, the answer its typical one; colour and place are asked most."""
    rng = random.Random(f"probe {seed}")
    asked = ["color"] * 7 + ["place"] * 7 + ["size", "texture", "shape"] * 2
    rows = []
    for held, count in ((True, held_out), (False, seen)):
        nouns = [noun for noun in all_nouns if noun.held_out == held]
        for i in range(count):
            noun, look = nouns[i % len(nouns)], asked[(i // len(nouns) + i) % len(asked)]
            it, value = f"the {noun.name}", getattr(noun, look)
            opener = rng.choice(OPENERS).format(noun=noun.name)
            question = rng.choice(QUESTIONS[look]).format(it=it)
            answers = [rng.choice(ANSWERS[look][:1]).format(it=it, value=_said(look, v)) for v in LOOKS[look]]
            facts = {"noun": noun.name, "held_out": held, "attribute": look, "value": value}
            facts |= {"choices": LOOKS[look], "answers": answers}
            response = answers[LOOKS[look].index(value)]
            rows.append({"context": [_an(opener), question], "response": response, "probe": facts})
    return rows
