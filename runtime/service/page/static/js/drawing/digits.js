// Scores for people: as many digits as tell a score from its threshold. `sinks/draw/digits.py` does the same for files.

const MOST = 6;

/** A score and its threshold as text, with the same number of digits. */
export function apart(score, threshold, least = 2) {
  const at = (digits) => [score.toFixed(digits), threshold.toFixed(digits)];
  for (let digits = least; digits <= MOST; digits++) {
    const [one, other] = at(digits);
    if (one !== other) return [one, other];
  }
  return at(score === threshold ? least : MOST);
}
