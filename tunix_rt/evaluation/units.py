"""What may stand behind a number without changing it: a known unit, what is counted, and `left`, `in total`, `each`.

Units are a closed table. What is counted is a plural (`stickers`, `red apples`, `people`): with words of a language an
open set, so it is bounded by its form and by the closed classes of words that count, deny or compare (`NO_THING`).
Ours; the field drops any words (Minerva, verl) or knows a few units only (hendrycks/math).
"""

from __future__ import annotations

import re
from functools import lru_cache

NOTHING: frozenset[str] = frozenset()
_UNITS = """
%: percent per_cent pct percentage
$: usd dollar dollars; €: eur euro euros; £: gbp; ¥: jpy yen; ₹: inr rupee rupees; ¢: cent cents
mm: millimeter millimeters millimetre millimetres; cm: centimeter centimeters centimetre centimetres
m: meter meters metre metres; km: kilometer kilometers kilometre kilometres
in: inch inches; ft: foot feet; yd: yard yards; mi: mile miles
g: gram grams gm; kg: kilogram kilograms kgs; lb: lbs pound pounds; oz: ounce ounces
gal: gallon gallons; ml: milliliter milliliters millilitre millilitres; l: liter liters litre litres
s: sec secs second seconds; min: mins minute minutes; h: hr hrs hour hours
day: days; week: weeks; month: months; year: years yr yrs
km/h: kmh kph; mph: miles_per_hour
am: a.m; pm: p.m
"""
_MORE = """
°: deg degs degree degrees; °c: c celsius degrees_celsius degrees_c ° c; °f: fahrenheit degrees_fahrenheit degrees_f
rad: radian radians; k: kelvin kelvins; ms: millisecond milliseconds; cent: c; ct: cts
mg: milligram milligrams; t: ton tons tonne tonnes; cl: centiliter centiliters; dm: decimeter decimeters
m/s: mps meters_per_second metres_per_second; acre: acres; ha: hectare hectares
n: newton newtons; j: joule joules; kj: kilojoule kilojoules; w: watt watts; kw: kilowatt kilowatts; kwh: kilowatt-hours
v: volt volts; a: amp amps ampere amperes; hz: hertz; pa: pascal pascals; mol: mole moles; cal: calorie calories
kcal: kilocalorie kilocalories; pt: pint pints; qt: quart quarts; cup: cups; tbsp: tablespoon tablespoons
tsp: teaspoon teaspoons; mile_per_hour: ; b: byte bytes; kb: kilobyte kilobytes; mb: megabyte megabytes
gb: gigabyte gigabytes; tb: terabyte terabytes; century: centuries; decade: decades; unit: units u
₩: won krw; chf: franc francs; cad: ; aud: ; ₽: ruble rubles rub; penny: pennies pence; nickel: nickels; dime: dimes
"""


def _spellings(table: str) -> dict[str, str]:
    units = (unit.split(":") for unit in re.split("[;\n] *", table.strip()))
    return {spelling: name for name, spellings in units for spelling in (name, *spellings.split())}


UNITS = _spellings(_UNITS)
"""Spelling (lower case, `_` for a space) → unit: those that steps are checked with."""
_ALL = UNITS | _spellings(_MORE)
_READINGS = {
    "m": ("m", "min"),
    "pound": ("lb", "£"),
    "pounds": ("lb", "£"),
    "°": ("°", "°c", "°f"),
    "deg": ("°", "°c", "°f"),
    "degree": ("°", "°c", "°f"),
    "degrees": ("°", "°c", "°f"),
    "c": ("°c", "¢"),
    "f": ("°f",),
    "'": ("ft", "min"),
    '"': ("in", "s"),
    "''": ("in", "s"),
    "oz": ("oz",),
    "second": ("s",),
    "gb": ("gb",),
    "unit": (),
    "units": (),
    "u": (),
    "times": (),
}
"""Spellings that may mean several units (`5 m` is 5 metres or 5 minutes), or none in particular."""
_POWERS = {
    "square": "^2",
    "sq": "^2",
    "sq.": "^2",
    "squared": "^2",
    "cubic": "^3",
    "cu": "^3",
    "cu.": "^3",
    "cubed": "^3",
}
_CURRENCIES = {
    "us$": "$",
    "a$": "aud",
    "c$": "cad",
    "rs": "₹",
    "rs.": "₹",
    "inr": "₹",
    "usd": "$",
    "usd$": "$",
    "usd $": "$",
    "eur": "€",
    "gbp": "£",
}
_LETTERS = "mgshlLNJWVACF"
"""Units of one letter, as they are written; any other letter is a variable (`5n` is not 5)."""
_AFTER = re.compile(
    r"(?:^| )(?:left|remaining|more|total|in total|altogether|all together|in all|overall|each|apiece|long|tall|wide|"
    r"high|deep|old|away|only|or so|today|(?:per|an?|every|/) [a-z][a-z'-]*(?: [a-z][a-z'-]+)?)$"
    r"|/(?:hr|hour|day|wk|week|month|year|yr|min|minute|sec|second|lb|kg|oz|person|page|mile|night|unit|piece|item)$"
)
"""Words at the end that leave a number as it is."""
_PLURAL = re.compile(r"[a-z][a-z'-]*(?<![suiy]s)(?<!ous)s")
_IRREGULAR = frozenset("people children men women feet teeth mice geese fish sheep deer dice oxen cattle data".split())
NO_THING = frozenset(
    """half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths seventh sevenths eighth
    eighths ninth ninths tenth tenths hundredth hundredths thousandth thousandths hundred hundreds thousand
    thousands million millions billion billions trillion trillions lakh lakhs crore crores grand mn bn tn dozen
    dozens score scores gross tens ones twos threes fours fives sixes sevens eights nines twenties thirties zero
    zeros zeroes one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
    sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety pi e i not no non
    never none nor isn't isnt wasn't aren't cannot can't don't doesn't is was are were be been has have had does
    less fewer plus minus times more than as or and but if unless then to the from by below under above over
    between within about except without versus vs against squared cubed square cube squares cubes root roots
    power powers factorial factorials log logs point mod divided multiplied modulo percent percents percentages
    wrong incorrect false guess maybe perhaps possibly probably negative positive double triple twice thrice its
    his this thus plusses yes pluses minuses exponents infinitely twelfths sixteenths twentieths fifteenths
    thirtieths fortieths fiftieths ninetieths twelfth millionths
    fails misses exceeds overshoots undershoots always sometimes nonetheless perhaps doubts contradicts differs equals
    violates breaks loses seems looks appears works matches satisfies follows remains means gives makes does goes
    holds lacks refutes discards quadrillion quadrillions quintillion quintillions myriad myriads grosses reciprocal
    reciprocals exponential exponentials negatives""".split()
)
"""Words that count, compare, deny or connect: with one of them, a number is not read."""


def units_of(text: str) -> frozenset[str] | None:
    """The units that `text`, behind a number, may name: empty if no known one; None if it may change the number."""
    text = text.strip()
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1].strip()
    if len(text) == 1 and text.isalpha() and text not in _LETTERS:
        return None
    return NOTHING if not text else _units_of(text.casefold())


def currency_of(text: str) -> frozenset[str]:
    """The currency that a sign or code before a number names."""
    return frozenset({_CURRENCIES.get(text.casefold().strip(), text.casefold().strip())}) if text.strip() else NOTHING


@lru_cache(maxsize=10_000)
def _units_of(text: str) -> frozenset[str] | None:
    if (known := _known(text)) is not None:
        return known
    shorter = _AFTER.sub("", text).strip()
    if shorter != text and (not shorter or (before := units_of(shorter)) is not None):
        return NOTHING if not shorter else before
    return _things(text)


def _known(text: str) -> frozenset[str] | None:
    """The units of a text that is nothing but a unit: `cm^2`, `square inches`, `km/h`, `miles per hour`."""
    text = re.sub(r" ?(?:/|\bper\b|\ba(?=n? (?:second|minute|hour|day|week|month|year)\b)n?) ?", "/", text)
    text = re.sub(r"° (?=[cf]$)", "°", text)
    text = re.sub(r"\b(sq|cu)\. ?", r"\1 ", text).removesuffix(".")
    parts = [_base(part.strip()) for part in text.split("/")]
    if None in parts or len(parts) > 2:
        return None
    if len(parts) == 1:
        return parts[0]
    names = {f"{above}/{below}" for above in parts[0] or () for below in parts[1] or ()}
    return frozenset(UNITS.get(name, name) for name in names) | frozenset({"mph"} if "mi/h" in names else ())


def _base(text: str) -> frozenset[str] | None:
    words = text.split()
    power = "".join(_POWERS.get(word, "") for word in words)
    name = "_".join(word for word in words if word not in _POWERS)
    if found := re.fullmatch(r"(.*[^0-9_^])\^?([23])", name):
        name, power = found[1], f"^{found[2]}"
    if name not in _ALL and name not in _READINGS:
        return None
    readings = _READINGS.get(name, (_ALL.get(name, ""),))
    return frozenset(f"{reading}{power}" for reading in readings)


def _things(text: str) -> frozenset[str] | None:
    """No unit in particular if the text names what is counted, at most four words with a plural; else None."""
    thing, _, rest = text.partition(" of ")
    words = thing.replace("/", " per ").split()
    words, after = (words[: words.index("per")], words[words.index("per") + 1 :]) if "per" in words else (words, [])
    every = [*words, *after, *rest.split()]
    if (
        not words
        or len(every) > 6
        or not all(re.fullmatch(r"[^\W\d_][^\W\d_'-]*(?:['-][^\W\d_]+)*'?", word) for word in every)
    ):
        return None
    if NO_THING & set(every) or NO_THING & set("-".join(every).split("-")) or any(len(word) == 1 for word in words):
        return None
    if (unit := _known(" ".join(words))) is not None:
        return unit if not after else NOTHING
    return NOTHING if words[-1] in _IRREGULAR or _PLURAL.fullmatch(words[-1]) else None
