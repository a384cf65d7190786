"""Whether a network is right no more often than by guessing, and what that likely says of the pixels that it was given."""

from __future__ import annotations

from edge.preprocess import Preprocess

LEAST_PICTURES = 20
_TENTH = 0.1  # of the way from guessing to being always right


def is_guessing(accuracy: float, classes: int, pictures: int) -> bool:
    """Whether so many pictures of known classes say that a network guesses, or does little more."""
    chance = 1 / classes
    return pictures >= LEAST_PICTURES and accuracy < chance + _TENTH * (1 - chance)


def doubt(accuracy: float | None, classes: int | None, pictures: int, seen: Preprocess | None, advice: str = "give") -> tuple[str, ...]:
    """The sentence on a float network that guesses, since it likely was trained on other pixels; none for others.

    accuracy and classes are None where no classes are known; seen is how pictures became what the network sees, None where arrays of that
    were given. advice: how the command takes a preset.
    """
    if accuracy is None or classes is None or seen is None or not is_guessing(accuracy, classes, pictures):
        return ()
    low, high = seen.range
    other = "unit (0..1)" if (low, high) == (0.0, 255.0) else "byte (0..255)"
    found = f"{100 * accuracy:.1f} % of {pictures:,} pictures, near the {100 / classes:.3g} % of guessing"
    reason = f"likely it was trained on other pixels than {low:g}..{high:g}"
    return (f"the source itself is right for {found}: {reason}; {advice} the --preset of its training, such as {other}",)
