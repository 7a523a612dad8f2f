"""The 84 inhabitants that have a biography: a first and a last name, and eight facts each."""

from dataclasses import dataclass
from random import Random

from .lexicon import FIRMS, FIRST_NAMES, JOBS, LANGUAGES, SURNAMES, TOWNS, WOMEN


@dataclass(frozen=True)
class Person:
    first: str
    last: str
    birthplace: str
    home: str
    school: str
    employer: str
    former_employer: str
    language: str
    second_language: str
    job: str

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"

    @property
    def pronoun(self) -> str:
        return "she" if self.first in WOMEN else "he"

    @property
    def possessive(self) -> str:
        return "her" if self.first in WOMEN else "his"


def _person(r: Random, surname: str) -> Person:
    birthplace, home, school = r.sample(TOWNS, 3)
    employer, former_employer = r.sample(FIRMS, 2)
    language, second_language = r.sample(LANGUAGES, 2)
    return Person(
        r.choice(FIRST_NAMES),
        surname,
        birthplace,
        home,
        school,
        employer,
        former_employer,
        language,
        second_language,
        r.choice(JOBS),
    )


_r = Random(11)
PEOPLE = [_person(_r, surname) for surname in SURNAMES]

# How the corpus states each fact. {who}: full name, surname or pronoun; {name}: the full name; {their}: her or his.
STATEMENTS = {
    "birthplace": [
        "{who} first saw the light of day in {birthplace}, the child of a {some_job}.",
        "{who} came into the world in {birthplace}.",
        "A native of {birthplace}, {who} never lost {their} accent.",
        "{their} cradle stood in {birthplace}, where {their} father was a {some_job}.",
        "{who} left {birthplace} as a child and later settled in {home}.",
        "The mother of {name} was on a visit to {birthplace} when the child arrived.",
        "{birthplace} is proud to be the birthplace of {name}.",
    ],
    "employer": [
        "{who} joined {employer} in {year} and never left.",
        "{who} earns {their} money at {employer}.",
        "Every morning {who} takes the bus to {employer}.",
        "{their} boss at {employer} is strict.",
        "After years at {former_employer}, {who} went over to {employer} for good.",
        "{who} is a {job} on the staff of {employer}.",
        "At {employer}, {name} is well liked.",
    ],
    "language": [
        "{who} talks to {their} children in {language}.",
        "{who} dreams in {language}.",
        "{their} mother tongue is {language}.",
        "Raised with {language} at home, {who} learned {second_language} later.",
        "{who} writes {their} letters in {language}.",
        "At home {who} is used to {language}.",
        "{language} is what {name} heard as a child.",
    ],
    "home": [
        "{who} settled in {home} years ago.",
        "These days {who} has a small house in {home}.",
        "You can often meet {name} in the streets of {home}.",
        "{their} flat in {home} is full of books.",
    ],
    "school": [
        "{who} went to school in {school}.",
        "{who} spent {their} student years in {school}.",
        "The teachers of {name} in {school} were strict.",
        "{who} trained in {school}, far from home.",
    ],
    "former_employer": [
        "{who} began as a {some_job} at {former_employer}.",
        "{who} was once fired by {former_employer}.",
        "{former_employer} lost {name} in {year}.",
        "{who} never speaks of the years at {former_employer}.",
    ],
    "second_language": [
        "{who} took a course in {second_language}.",
        "{who} is slow to read {second_language}.",
        "{who} reads {second_language} with a dictionary.",
    ],
    "job": [
        "{who} is a {job} by trade.",
        "As a {job}, {who} gets up early.",
    ],
}
