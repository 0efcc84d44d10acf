"""Word problems with their solutions, made by rule: no test set has a part in them."""

from fractions import Fraction
from math import gcd
from random import Random

NAMES = "Ada Bruno Carla David Elena Farid Grace Hugo Ines Jonas Kofi Lena Mara Nils Olga Pedro".split()
THINGS = "apples books cards coins eggs flowers marbles nails oranges pencils shells stamps stones tickets".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def problems(count):
    """`count` different problems, `Problem: …` and `Solution: …` on a line each; always the same ones."""
    random, found = Random(0), {}
    while len(found) < count:
        kind = KINDS[len(found) % len(KINDS)]
        question, steps, answer = kind(random)
        found[f"Problem: {question}\nSolution: {steps} The answer is {answer}."] = None
    return list(found)


def two_names(random):
    at = random.randrange(len(NAMES))
    return NAMES[at], NAMES[at - random.randrange(1, len(NAMES))]


def more(random):
    (name, giver), thing = two_names(random), random.choice(THINGS)
    a, b = random.randrange(3, 90), random.randrange(2, 60)
    return (
        f"{name} has {a} {thing}, and {giver} brings {b} more. How many {thing} does {name} have now?",
        f"To the {a} {thing} come {b}: {a} + {b} = {a + b}.",
        a + b,
    )


def fewer(random):
    name, thing = random.choice(NAMES), random.choice(THINGS)
    b, c = random.randrange(2, 50), random.randrange(2, 50)
    a = b + c + random.randrange(1, 60)
    return (
        f"Of {a} {thing} {name} loses {b} and gives away {c}. How many {thing} are left?",
        f"Together {b} + {c} = {b + c} {thing} are gone, so {a} - {b + c} = {a - b - c} are left.",
        a - b - c,
    )


def boxes(random):
    name, thing = random.choice(NAMES), random.choice(THINGS)
    a, b, c = random.randrange(3, 13), random.randrange(4, 25), random.randrange(1, 20)
    return (
        f"{name} fills {a} boxes with {b} {thing} each, and has {c} {thing} left over. How many {thing} are there?",
        f"The boxes hold {a} * {b} = {a * b} {thing}. With those left over there are {a * b} + {c} = {a * b + c}.",
        a * b + c,
    )


def share(random):
    thing, children, each = random.choice(THINGS), random.randrange(3, 13), random.randrange(4, 30)
    left = random.randrange(children)
    total = children * each + left
    return (
        f"{total} {thing} are shared equally among {children} children. How many {thing} are left over?",
        f"Each child gets {each}, since {children} * {each} = {total - left} and {children} * {each + 1} = "
        f"{total - left + children} is too many. So {total} - {total - left} = {left} are left over.",
        left,
    )


def change(random):
    name, thing = random.choice(NAMES), random.choice(THINGS)
    count, price = random.randrange(2, 10), random.randrange(2, 15)
    paid = (count * price // 50 + 1) * 50
    return (
        f"{name} buys {count} {thing} for {price} dollars each and pays with {paid} dollars. How many dollars does "
        f"{name} get back?",
        f"The {thing} cost {count} * {price} = {count * price} dollars, so {name} gets back {paid} - {count * price} = "
        f"{paid - count * price} dollars.",
        paid - count * price,
    )


def journey(random):
    name, hours, speed = random.choice(NAMES), random.randrange(2, 9), 5 * random.randrange(3, 25)
    by = random.choice(["bus", "train", "ship", "car"])
    if random.randrange(2):
        return (
            f"{name} travels by {by} at {speed} kilometers an hour. How many kilometers does {name} travel in {hours} "
            f"hours?",
            f"In each hour it is {speed} kilometers, so in {hours} hours it is {hours} * {speed} = {hours * speed}.",
            hours * speed,
        )
    return (
        f"A {by} goes {speed} kilometers an hour. How many hours does {name} need for {hours * speed} kilometers?",
        f"The time is the way divided by the speed: {hours * speed} / {speed} = {hours}.",
        hours,
    )


def discount(random):
    price, percent = 20 * random.randrange(2, 40), 5 * random.randrange(1, 16)
    less = price * percent // 100
    thing = random.choice(["coat", "lamp", "chair", "watch", "bicycle"])
    return (
        f"A {thing} costs {price} dollars. How much does it cost when its price falls by {percent} percent?",
        f"{percent} percent of {price} are {price} * {percent} / 100 = {less}. What remains is {price} - {less} = "
        f"{price - less}.",
        price - less,
    )


def rectangle(random):
    a, b = random.randrange(3, 40), random.randrange(3, 40)
    if random.randrange(2):
        return (
            f"A garden is {a} meters long and {b} meters wide. What is its area in square meters?",
            f"The area is length times width: {a} * {b} = {a * b}.",
            a * b,
        )
    return (
        f"A field is {a} meters long and {b} meters wide. How many meters of fence go around it?",
        f"The fence is twice as long as both sides together: 2 * ({a} + {b}) = 2 * {a + b} = {2 * (a + b)}.",
        2 * (a + b),
    )


def equation(random):
    a, x, b = random.randrange(2, 13), random.randrange(-12, 25), random.randrange(1, 40)
    return (
        f"Solve {a}x + {b} = {a * x + b}.",
        f"Subtract {b} from both sides: {a}x = {a * x}. Divide both sides by {a}: x = {x}.",
        f"x = {x}",
    )


def sequence(random):
    first, step, n = random.randrange(1, 20), random.randrange(2, 12), random.randrange(8, 40)
    shown = ", ".join(str(first + step * i) for i in range(4))
    return (
        f"What is term number {n} of the sequence {shown}, ...?",
        f"Each term is {step} more than the one before it. After the first term {step} is added {n - 1} times: {first} "
        f"+ {n - 1} * {step} = {first} + {(n - 1) * step} = {first + (n - 1) * step}.",
        first + (n - 1) * step,
    )


def average(random):
    mean, parts = random.randrange(10, 60), []
    for _ in range(random.randrange(1, 3)):
        far = random.randrange(1, 10)
        parts += [mean - far, mean + far]
    parts.append(mean)
    total, written = sum(parts), [str(part) for part in parts]
    return (
        f"What is the average of {', '.join(written[:-1])} and {written[-1]}?",
        f"The sum is {' + '.join(written)} = {total}. Divided by how many they are: {total} / {len(parts)} = {mean}.",
        mean,
    )


def divisor(random):
    factor = random.randrange(2, 20)
    a, b = factor * random.randrange(2, 14), factor * random.randrange(2, 14)
    steps, x, y = [], max(a, b), min(a, b)
    while y:
        steps.append(f"{x} = {x // y} * {y} + {x % y}")
        x, y = y, x % y
    return (
        f"Find the greatest common divisor of {a} and {b}.",
        f"Divide with remainder until nothing remains: {', '.join(steps)}. The last divisor is {x}.",
        gcd(a, b),
    )


def fractions(random):
    b, d = random.randrange(2, 13), random.randrange(2, 13)
    a, c = random.randrange(1, b), random.randrange(1, d)
    common = b * d // gcd(b, d)
    over, total = a * common // b + c * common // d, Fraction(a, b) + Fraction(c, d)
    lowest = "" if total.denominator == common else f", which is {total} in lowest terms"
    return (
        f"Add {a}/{b} and {c}/{d}.",
        f"The common denominator is {common}: {a}/{b} = {a * common // b}/{common} and {c}/{d} = "
        f"{c * common // d}/{common}. The sum is {over}/{common}{lowest}.",
        total,
    )


def ages(random):
    (old, young), times = two_names(random), random.randrange(2, 6)
    age, years = random.randrange(3, 15), random.randrange(2, 12)
    return (
        f"{old} is {times} times as old as {young}, who is {age} years old. How old will {old} be in {years} years?",
        f"Today {old} is {times} * {age} = {times * age} years old. In {years} years it will be {times * age} + {years} "
        f"= {times * age + years}.",
        times * age + years,
    )


def recipe(random):
    few, times, grams = random.randrange(2, 6), random.randrange(2, 7), 10 * random.randrange(2, 40)
    return (
        f"A recipe for {few} people takes {grams * few} grams of flour. How many grams are needed for {few * times} "
        f"people?",
        f"One person needs {grams * few} / {few} = {grams} grams. For {few * times} people it is {few * times} * "
        f"{grams} = {few * times * grams} grams.",
        few * times * grams,
    )


def minutes(random):
    hours, start, length = random.randrange(6, 20), 5 * random.randrange(12), 5 * random.randrange(3, 40)
    begin = 60 * hours + start
    end = begin + length
    clock = f"{end // 60}:{end % 60:02}"
    return (
        f"A film starts at {hours}:{start:02} and lasts {length} minutes. When does it end?",
        f"{hours}:{start:02} is {begin} minutes after midnight. {begin} + {length} = {end} = {end // 60} * 60 + "
        f"{end % 60}.",
        clock,
    )


def expression(random):
    a, b, c, d = (random.randrange(2, 15) for _ in range(4))
    return (
        f"Compute {a} * {b} + {c} * {d}.",
        f"Products come first: {a} * {b} = {a * b} and {c} * {d} = {c * d}. Their sum is {a * b} + {c * d} = "
        f"{a * b + c * d}.",
        a * b + c * d,
    )


def weekday(random):
    day, later = random.randrange(7), random.randrange(8, 100)
    return (
        f"Today is {DAYS[day]}. What day is it in {later} days?",
        f"Every 7 days the same day comes again. {later} = {later // 7} * 7 + {later % 7}. Count {later % 7} "
        f"on from {DAYS[day]}.",
        DAYS[(day + later) % 7],
    )


KINDS = [
    more, fewer, boxes, share, change, journey, discount, rectangle, equation, sequence, average, divisor, fractions,
    ages, recipe, minutes, expression, weekday,
]
