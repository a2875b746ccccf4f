"""The rules of the welcome bonus. Pure."""

LEAST_POINTS = 100
MOST_POINTS = 1_000


def welcome_bonus(amount: int) -> int:
    """Return the bonus for a first purchase of so many cents: a point for ten cents, 100 to 1,000."""
    return min(max(amount // 10, LEAST_POINTS), MOST_POINTS)
