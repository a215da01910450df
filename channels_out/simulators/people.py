"""The simulated customers. Their phone numbers are reserved for fiction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SimulatedPerson:
    """A customer. `shows_phone` is False if WhatsApp names them by a business-scoped user id alone."""

    number: int
    name: str
    shows_phone: bool = True

    @property
    def phone(self) -> str:
        """The phone number: digits with the country code. North America reserves 555-0100 to 555-0199 for fiction."""
        return f"120255501{self.number:02}"


PEOPLE = (
    SimulatedPerson(1, "Ana Flores"),
    SimulatedPerson(2, "Ben Okafor"),
    SimulatedPerson(3, "Chloé Martin"),
    SimulatedPerson(4, "Dinesh Rao"),
    SimulatedPerson(5, "Elif Kaya"),
    SimulatedPerson(7, "María Quispe"),
    SimulatedPerson(6, "Finn (hides the number)", shows_phone=False),
)


def person(number: int) -> SimulatedPerson | None:
    """Return the customer with this number, or None."""
    return next((each for each in PEOPLE if each.number == number), None)
