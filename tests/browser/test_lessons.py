"""The lessons as a person walks them: run all, and use every control by keyboard."""


def test_start_here(open_lesson):
    lesson = open_lesson("00_start_here")
    lesson.run_all(seconds=180)
    guess = lesson.card("Which share of the numbers")
    guess.shown.get_by_role("textbox").fill("101")
    guess.press("commit")
    guess.wait_for("Type a number from 0 to 100.")
    guess.shown.get_by_role("textbox").fill("5")
    guess.press("commit")
    guess.wait_for("Your guess: 5")
    lesson.no_errors()
    guess.screenshot("00_guess")
    lesson.screenshot("00_start_here")
