"""`open_lesson("07_lora")` for every browser test; without a Chromium they are skipped, and the summary says so."""

import classroom
import pytest


@pytest.fixture(scope="session")
def room(tmp_path_factory, request):
    whole = request.config.getoption("whole_lessons")
    try:
        with classroom.classroom(tmp_path_factory.mktemp("classroom"), whole) as room:
            yield room
    except classroom.NoChromium as reason:
        pytest.skip(str(reason))


@pytest.fixture
def open_lesson(room):
    with room.desk() as open_lesson:
        yield open_lesson
