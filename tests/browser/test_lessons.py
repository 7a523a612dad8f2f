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


def test_full_fine_tuning_and_freezing(open_lesson):
    lesson = open_lesson("01_full_fine_tuning_and_freezing")
    lesson.run_all(seconds=300)
    assert lesson.commit_every_guess() >= 3
    use(lesson.card("What is trained, from the top"), "blocks", "01_card")
    lesson.no_errors()


def test_adapters(open_lesson):
    lesson = open_lesson("02_adapters")
    lesson.run_all(seconds=300)
    assert lesson.commit_every_guess() >= 3
    use(lesson.card("An adapter's bottleneck"), "bottleneck", "02_card")
    lesson.no_errors()


def test_prefix_tuning(open_lesson):
    lesson = open_lesson("03_prefix_tuning")
    lesson.run_all(seconds=300)
    assert lesson.commit_every_guess() >= 3
    use(lesson.card("A prefix's length"), "length", "03_card")
    lesson.no_errors()


def test_prompt_tuning(open_lesson):
    lesson = open_lesson("04_prompt_tuning")
    lesson.run_all(seconds=300)
    assert lesson.commit_every_guess() >= 3
    use(lesson.card("A prompt's length"), "length", "04_card")
    lesson.no_errors()


def test_lora(open_lesson):
    lesson = open_lesson("07_lora")
    lesson.run_all(seconds=300)
    guess = lesson.card("if A and B both start at zero")
    guess.press("commit")
    guess.wait_for("Choose one first.")
    guess.shown.get_by_role("radio", name="it never learns anything").check()
    guess.press("commit")
    guess.wait_for("Your guess: it never learns anything")
    assert lesson.commit_every_guess() >= 3
    use(lesson.card("LoRA's rank"), "rank", "07_card")
    lesson.no_errors()


def use(card, slider, name):
    """Every position that a hand reaches first, then a training that is stopped."""
    for key in ("ArrowRight", "Home", "End", "ArrowLeft"):
        with card.changing("text", "figure"):
            card.move(slider, key)
    card.press("train")
    card.wait_for("loss")
    card.screenshot(f"{name}_training")
    card.press("stop")
    card.wait_for("stopped after")
    card.screenshot(name)
