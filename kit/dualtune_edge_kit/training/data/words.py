# ruff: noqa: SIM905 - word lists read better as text
"""Word pools: those of the training, and those of the held-out set. They share no word."""

from random import Random
from typing import Final

TRAIN_NOUNS: Final = tuple(
    """account action address agenda album alert anchor answer apple archive arrow asset atlas audio author badge
    balance banner barrel basket battery beacon binder bird block board border bottle bridge bridle brush bucket
    budget buffer bundle button cabin cable cache calendar camera campaign canvas carbon card cargo carpet castle
    catalog channel chapter chart circle citizen client clock cloud cluster coast column comet contact copper corner
    cotton counter coupon course cover crystal cursor customer cycle dashboard daemon deadline delivery desert
    device diary digest dinner doctor dragon driver eagle editor email engine entry error evening event exam export
    fabric factor falcon feature field filter finance flag flight flower folder forest format forum frame garden gate
    gateway genome glass graph grid group guest guide hammer handler harbor header health helper history holiday
    hotel house icon image import index input invoice island item jacket journal jungle kernel kettle key kitchen
    label ladder lamp lantern layer layout leader ledger legend lemon lesson letter level library license light
    lion list loader locale lock log loop lunar machine magnet mail manager map marble market matrix meadow media
    member memory menu message metal meter mirror mobile model module money monitor morning motor mountain museum
    music needle network night north note notice number object ocean office olive option orange orbit order origin
    output owner package page paint palace panel paper parcel park parser partner pattern payment pencil people
    pepper phone photo piano picture pilot pixel planet plant plate player plugin pocket poem policy portal post
    prairie price printer process product profile project proxy puzzle quarter query queue quota rabbit radar radio
    rain ranch recipe record region release remote rental report request review ribbon ridge ring river road robot
    rocket roof root router runner sailor salad sample scale schema school scope screen script season secret section
    sensor server service session shadow shelf shield ship shop signal silver sketch socket solar sound source south
    spark spider spring square stadium stage station status stone store storm story stream street studio style
    summer summit sunset supply switch symbol system table target task teacher temple tenant test text theme ticket
    tiger timer title token tool topic tower track trade traffic train travel tree trigger tunnel turbine update
    user valley vector vendor version video village violin visit voice volume voyage wallet water weather week
    wheel widget window winter wizard worker world writer yard zebra zone""".split()
)
HELDOUT_NOUNS: Final = tuple(
    """abacus acorn airport almond ambulance antenna apricot aquarium armada avalanche avocado bakery balcony bamboo
    banjo barley bicycle biscuit blizzard blossom bobcat bonfire boulder bracelet broccoli buffalo cactus candle
    canyon caravan cathedral cello chimney cinnamon clarinet cobweb coconut compass coral cricket cucumber cyclone
    dahlia dolphin dungeon easel eclipse elbow elevator emerald envelope fern festival fiddle fountain foxglove
    galaxy gecko giraffe glacier goblet gondola granite grasshopper hamster harvest hazelnut hedgehog helmet hornet
    iceberg iguana ivory jasmine jigsaw kangaroo kayak koala lagoon lavender lighthouse lobster locust lynx magnolia
    mango maple marathon meteor mosaic mushroom mustard nebula nectar nutmeg oasis octopus opera orchard orchid
    ostrich otter panther papaya parrot peacock pebble pelican penguin phoenix pigeon pineapple plum pollen poppy
    porcupine pretzel puffin pumpkin pyramid quartz quilt raccoon raspberry raven reef rhubarb safari saffron
    salmon sapphire saxophone scarecrow seagull shamrock skeleton sparrow spinach squirrel stallion starfish
    strawberry submarine sunflower sycamore tambourine tangerine teapot thimble thunder topaz tornado toucan
    trampoline trombone tulip turnip turtle umbrella unicorn vanilla velvet volcano walnut walrus waterfall
    whirlpool willow windmill wombat yogurt zeppelin zucchini""".split()
)
TRAIN_VERBS: Final = tuple(
    """adjust allow apply archive attach avoid build bump cache change check clean clear close collect combine
    compare compress convert correct count create deploy describe disable document drop enable encode enforce expand
    export extend extract fetch filter fix force format guard handle hide ignore import improve include inline insert
    install introduce limit link load log map mark measure merge migrate mock move optimize parse patch pin prepare
    print protect publish raise reduce refactor reject remove rename render repair replace report resolve restore
    retry return reuse reverse rotate run sanitize save scale send share shrink simplify skip sort speed split start
    stop store strip support swap switch sync test tidy trace track trim tune unify update upgrade use validate
    verify warn wrap write""".split()
)
HELDOUT_VERBS: Final = tuple(
    """abandon accelerate amend augment rebalance bypass calibrate clarify collapse consolidate decouple defer deprecate
    detach elevate embed flatten freeze gather harden harmonize hoist isolate juggle loosen memoize narrow normalize
    overhaul polish postpone prune quicken rebuild recover redesign relax rewrite salvage segregate silence soften
    squash stabilize streamline strengthen tighten transform unblock uncover untangle vectorize weaken widen
    withdraw""".split()
)
_HELDOUT: Final = frozenset((*HELDOUT_NOUNS, *HELDOUT_VERBS))
TRAIN_EXTENSIONS: Final = tuple("txt md py js ts json csv log yaml toml html css go rs java sql xml cfg".split())
HELDOUT_EXTENSIONS: Final = tuple("rb php lua ini kt swift tsv rst vue scss proto dart".split())
TRAIN_MEDIA: Final = tuple("png jpg mp3 wav gif".split())
HELDOUT_MEDIA: Final = tuple("webp flac jpeg ogg".split())
TRAIN_ROOTS: Final = tuple("/home /srv /var /opt /data /tmp /mnt /usr/share /workspace /projects".split())
HELDOUT_ROOTS: Final = tuple("/media /export /net /vol /storage /archive/disk /shared /users".split())
TRAIN_PREFIXES: Final = tuple("feature fix release hotfix docs chore user wip".split())
HELDOUT_PREFIXES: Final = tuple("bugfix experiment perf ci preview".split())

_ONSETS: Final = (
    "b c d f g h j k l m n p q r s t v w x y z br ch cl cr dr fl fr gl gr pl pr qu sc sh sk sl sm sn sp st sw th tr tw "
    "wh"
).split()
_VOWELS: Final = "a e i o u a e i o u ai ea ee ie oa oo ou au ay ow".split()
_CODAS: Final = [
    "",
    "",
    "",
    "",
    *"b c d f g k l m n p r s t x ck ld ll lt mp nd ng nk nt rd rk rm rn rt ss st sh th".split(),
]


def invented(rng: Random) -> str:
    """An invented word: two real ones joined, syllables, or sometimes random letters; none that is held out."""
    while (word := _invented(rng)) in _HELDOUT:
        pass
    return word


def _invented(rng: Random) -> str:
    style = rng.random()
    if style < 0.15:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 8)))
    if style < 0.55:
        first, second = rng.choice(TRAIN_NOUNS), rng.choice(TRAIN_NOUNS)
        return first[: rng.randint(2, 5)] + second[-rng.randint(2, 5) :]
    syllables = rng.choice((1, 1, 2, 2, 3))
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
