import base64
import dataclasses
import html.parser
import io
import re
import unicodedata

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from diffence import report as reports
from diffence.report import figures
from diffence.report.content import (
    AttackRow,
    Estimate,
    ImageGrid,
    IntervalSearch,
    PhiSample,
    Report,
    RocCurve,
    SettingRow,
)
from diffence.report.text import interval, number

SETTINGS = (
    "undefended",
    "scenario 1",
    "scenario 2",
    "scenario 3",
    "averaging of logits",
    "averaging of probabilities",
)
ATTACKS = ("loss", "modified entropy")
NASTY = '<script>alert("x")</script> & \'quoted\' <img src="http://example.invalid/x.png">'


def around(value, half=0.04):
    return Estimate(value, value - half, value + half)


def setting_row(name="undefended", auc=0.75, **changes):
    row = SettingRow(
        setting=name,
        test_accuracy=around(0.931),
        labels_changed=0.0,
        gap_floor=around(0.534),
        attack="loss",
        auc=around(auc),
        attack_accuracy=around(0.68),
        auc_change=Estimate() if name == "undefended" else around(auc - 0.75),
        fallback_rate=0.042,
        draws_used=30.0,
        ms_per_image=18.25,
    )
    return dataclasses.replace(row, **changes)


def roc(setting="undefended", attack="loss", shift=0.8, n=200):
    rng = np.random.default_rng(0)
    members, nonmembers = rng.normal(shift, size=n), rng.normal(size=n)
    cuts = np.sort(np.concatenate([members, nonmembers]))[::-1]
    fpr, tpr = ([0.0, *[(scores >= cut).mean() for cut in cuts]] for scores in (nonmembers, members))
    return RocCurve(setting, attack, fpr, tpr, n, n, around(0.7))


def grid(channels=1, rows=3, draws=4, **more):
    rng = np.random.default_rng(1)
    return ImageGrid(rng.random((rows, channels, 8, 8)), rng.random((rows, draws, channels, 8, 8)), **more)


def full_report(**changes):
    rng = np.random.default_rng(2)
    lows, highs = np.array([(low, high) for low in range(6) for high in range(low + 1, 7)], dtype=float).T
    made = Report(
        title="Digits",
        settings=[setting_row(name, 0.75 - 0.03 * i) for i, name in enumerate(SETTINGS)],
        attacks=[AttackRow(name, attack, around(0.7), around(0.6)) for name in SETTINGS for attack in ATTACKS],
        setup={"seed": 7, "Fence": {"T": 160, "k": None, "early": False, "lr": 0.0003}},
        roc=[roc(name, attack) for name in SETTINGS for attack in ATTACKS],
        phi=[PhiSample(name, rng.normal(5, 2, 90), rng.normal(4, 2, 80), (3.0, 6.0)) for name in SETTINGS],
        images=grid(captions=["a", "b", "c"], draw_captions=[["7"] * 4] * 3, chosen=[0, 3, -1]),
        search=IntervalSearch(lows, highs, rng.random(len(lows)), (1.0, 4.0)),
        notes=["one note"],
    )
    return dataclasses.replace(made, **changes)


class Page(html.parser.HTMLParser):
    """Checks that tags close in order, and collects text, tags and attributes."""

    VOID = ("meta", "img", "br", "link", "hr", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def words(self):
        return " ".join(" ".join(self.text).split())

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def rendered():
    return reports.render(full_report())


def test_the_page_is_self_contained(rendered):
    page = Page(rendered)
    assert not page.named("script")
    assert not page.named("link")
    assert "http:" not in rendered
    assert "https:" not in rendered
    assert "@import" not in rendered
    assert "url(" not in rendered
    for _, attrs in page.tags:
        assert attrs.get("href", "#").startswith("#")
        assert attrs.get("src", "data:image/").startswith("data:image/")
    anchors = {attrs["href"][1:] for attrs in page.named("a")}
    assert anchors <= {attrs.get("id") for _, attrs in page.tags}


def test_figures_inside_refer_to_nothing_outside(rendered):
    svgs = [base64.b64decode(data).decode() for data in re.findall(r"svg\+xml;base64,([^\"]+)", rendered)]
    assert len(svgs) == 1 + len(ATTACKS) + len(SETTINGS) + 1
    for svg in svgs:
        assert svg.startswith("<svg")
        assert set(re.findall(r'\bhref="(.)', svg)) <= {"#", "d"}  # an element of the same file, or data:
        assert set(re.findall(r"url\((.)", svg)) <= {"#"}
        # Names of namespaces are not addresses that anything loads.
        assert set(re.findall(r'https?://[^"]*', svg)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_page_is_complete_and_semantic(rendered):
    page = Page(rendered)
    assert page.named("html")[0]["lang"] == "en"
    assert page.named("meta")[1]["name"] == "viewport"
    assert len(page.named("h1")) == 1
    for image in page.named("img"):
        assert len(image["alt"]) > 20
        assert int(image["width"]) <= 460 or image["src"].startswith("data:image/png")
    words = page.words()
    for expected in ("Digits", "0.750", "[.710, .790]", "93.1%", "modified entropy", "seed", "7", "0.0003", "one note"):
        assert expected in words
    assert "What is not covered" in words
    assert "labels only" in words
    assert "@media print" in rendered
    assert sum("scope" in attrs for attrs in page.named("th")) == len(page.named("th"))


def test_same_input_same_bytes_whatever_the_users_style(rendered):
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "other", "text.parse_math": True}):
        before = dict(mpl.rcParams)
        assert reports.render(full_report()) == rendered
        assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    "where", ["title", "setting", "attack", "note", "setup name", "setup value", "group", "caption"]
)
def test_strings_of_the_user_are_escaped(where):
    row, attack = setting_row(), AttackRow("undefended", "loss", around(0.7))
    changes = {
        "title": {"title": NASTY},
        "setting": {
            "settings": [dataclasses.replace(row, setting=NASTY)],
            "attacks": [dataclasses.replace(attack, setting=NASTY)],
            "roc": [roc(NASTY)],
            "phi": [PhiSample(NASTY, [1.0, 2.0], [0.0, 1.0])],
        },
        "attack": {
            "settings": [dataclasses.replace(row, attack=NASTY)],
            "attacks": [dataclasses.replace(attack, attack=NASTY)],
            "roc": [roc(attack=NASTY)],
        },
        "note": {"notes": [NASTY]},
        "setup name": {"setup": {NASTY: 1}},
        "setup value": {"setup": {"data": NASTY}},
        "group": {"setup": {NASTY: {NASTY: [NASTY]}}},
        "caption": {"images": grid(captions=[NASTY] * 3)},
    }[where]
    text = reports.render(dataclasses.replace(Report("x", [SettingRow("undefended")]), **changes))
    page = Page(text)
    assert not page.named("script")
    assert all(attrs["src"].startswith("data:") for attrs in page.named("img"))
    assert "<script" not in text
    shown = page.words() + " ".join(attrs["alt"] for attrs in page.named("img"))
    assert "alert(" in shown


def test_dollar_signs_in_names_are_no_mathematics():
    assert figures.roc_curves([roc("a $\\frac{$ b", "$x^2$ $\\bad$")])[0].data.startswith(b"<svg")


def test_a_report_of_the_least():
    page = Page(reports.render(Report("Only this", [SettingRow("undefended")])))
    assert page.named("img") == []
    assert "No attack was evaluated" in page.words()
    assert "Not recorded" in page.words()


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_what_is_not_known_is_a_dash(missing):
    nothing = Estimate(missing, missing, missing)
    row = SettingRow("scenario 3", nothing, missing, nothing, "", nothing, nothing, nothing, missing, missing, missing)
    attack = AttackRow("scenario 3", "loss", nothing, nothing, nothing, nothing, nothing, nothing)
    page = Page(reports.render(Report("x", [setting_row(), row], [attack])))
    table = reports.text_table([row])
    assert table.splitlines()[3].split() == ["scenario", "3", *["–"] * 10]
    assert reports.detail_table([attack]).splitlines()[-1].split() == ["scenario", "3", *["–"] * 4]
    assert "nan" not in (table + page.words()).lower()
    assert "None" not in table + page.words()
    assert page.words().count("–") >= 16
    half = SettingRow("scenario 3", auc=Estimate(0.6, None, 0.7))
    assert "[" not in reports.text_table([half]).split("In brackets")[0]


def test_an_empty_report_is_refused():
    with pytest.raises(ValueError, match="settings: expected at least one row"):
        Report("x", [])


# ---- what the numbers say ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Estimate(-0.14, -0.18, -0.10), "lowers that by 0.140 (0.100 to 0.180) to 0.610 (0.570 to 0.650)"),
        (Estimate(0.05, 0.02, 0.08), "makes it worse, by 0.050 (0.020 to 0.080) to 0.610"),
        (Estimate(-0.01, -0.05, 0.03), "makes no difference that these images can show: 0.610"),
        (Estimate(), "it reaches 0.610 (0.570 to 0.650)"),
    ],
)
def test_the_headline_says_what_the_paired_difference_says(change, expected):
    text = reports.headline([setting_row(), setting_row("scenario 3", 0.61, auc_change=change)])
    assert expected in text
    assert "leaks who was in its training set: the strongest attack (loss) reaches an AUC of 0.750" in text
    assert text.endswith("at the same test accuracy of 93.1%.")


def test_the_headline_names_the_best_setting_that_keeps_labels():
    rows = [setting_row(), setting_row("scenario 1", 0.65), setting_row("scenario 3", 0.61)]
    rows.append(setting_row("averaging of logits", 0.55, labels_changed=0.02, test_accuracy=around(0.9)))
    assert "“scenario 3”, the best of 3 tried," in reports.headline(rows)
    alone = reports.headline([rows[0], rows[-1]])
    assert "“averaging of logits” lowers" in alone
    assert "test accuracy goes from 93.1% to 90.0%" in alone


def test_no_leak_is_claimed_when_the_interval_reaches_guessing():
    text = reports.headline([setting_row(auc=0.52)])
    assert "no leak can be shown" in text
    assert "no defense was measured" in text
    assert "the undefended classifier was not measured" in reports.headline([setting_row("scenario 3", 0.6)])


def test_remarks_tell_the_floor_changed_labels_and_fallbacks():
    rows = [
        setting_row(fallback_rate=None),
        setting_row("scenario 3", 0.56),
        setting_row("hamp", 0.7, labels_changed=0.02),
    ]
    words = Page(reports.render(Report("x", rows))).words()
    assert "Labels alone already give an AUC of 0.534" in words
    assert "the interval of “scenario 3” reaches down to it" in words
    assert "Images whose label differs from the undefended one: hamp 2.0%." in words
    assert "answered by the fallback: scenario 3 4.2%, hamp 4.2%." in words
    rows[1] = setting_row("scenario 3", 0.65)
    assert "the interval of “scenario 3” lies above it" in Page(reports.render(Report("x", rows))).words()


# ---- tables for the terminal -------------------------------------------------------------------------------------


def test_numbers_are_written_with_true_minus_and_without_minus_zero():
    assert [number(value) for value in (0.5, -0.14, -0.0001, 1.0)] == ["0.500", "−0.140", "0.000", "1.000"]
    assert number(0.14, sign=True) == "+0.140"
    assert [number(value) for value in (None, float("nan"), float("inf"))] == ["–"] * 3
    assert interval(Estimate(0.9, 0.8, 1.0)) == "[.800, 1.000]"
    assert interval(Estimate(-0.1, -0.2, 0.01)) == "[−.200, .010]"
    assert interval(Estimate(0.02, 0.0, 0.105), 1, scale=100) == "[0.0, 10.5]"


def test_the_table_of_the_terminal():
    rows = [setting_row(name, 0.75 - 0.03 * i) for i, name in enumerate(SETTINGS)]
    lines = reports.text_table(rows).splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[2] == "─" * len(lines[2])
    cells = [line.split() for line in lines]
    assert cells[3] == ["undefended", "93.1%", "0.0%", "0.534", "loss", "0.750", "0.680", "–", "4.2%", "30.0", "18.2"]
    assert lines[4].split() == ["[.710,", ".790]", "[.640,", ".720]"]
    assert cells[5][:8] == ["scenario", "1", "93.1%", "0.0%", "0.534", "loss", "0.720", "0.680"]
    ends = {line.index(value) + len(value) for line in lines[3:5] for value in ("0.750", ".790]") if value in line}
    assert len(ends) == 1  # the value stands above the end of its interval
    assert "averaging of" in lines[11]
    assert lines[12].startswith("logits")


def test_details_are_grouped_by_attack():
    lines = reports.detail_table(list(full_report().attacks)).splitlines()
    assert max(map(len, lines)) <= 120
    groups = [line for line in lines[2:] if not line.startswith(" ")]
    assert groups == list(ATTACKS)
    assert len(lines) == 2 + len(ATTACKS) * (1 + len(SETTINGS))
    assert lines[3].split() == ["undefended", "0.700", "[.660,", ".740]", "0.600", "[.560,", ".640]", "–", "–"]


def test_very_long_names_and_odd_numbers_stay_in_their_place():
    name = "a defense with a very long name " * 12 + "x" * 300
    row = setting_row(name, attack=name, draws_used=1000.0, ms_per_image=123456.7)
    attack = AttackRow(name, name, around(-0.5), around(0.5), around(0.5), around(1.0, 0), around(0.5), around(-0.1))
    for text in (reports.text_table([row]), reports.detail_table([attack])):
        assert max(map(len, text.splitlines())) <= 120
        assert "…" in text
    report = Report(name, [row], [attack], {name: name}, [roc(name, name)], [PhiSample(name, [1.0], [2.0])])
    for image in Page(reports.render(dataclasses.replace(report, images=grid(captions=[name] * 3)))).named("img"):
        assert int(image["width"]) <= 660
    assert all(unicodedata.category(sign) != "Cc" for sign in reports.text_table([row]) if sign != "\n")


# ---- from tidy results -------------------------------------------------------------------------------------------


def tidy(*rows):
    columns = [
        "dataset",
        "classifier",
        "defense",
        "scenario",
        "mode",
        "attack",
        "metric",
        "value",
        "low",
        "high",
        "n",
        "seed",
    ]
    return pd.DataFrame([("digits", "cnn", *row, 100, 0) for row in rows], columns=columns)


TIDY = (
    ("none", "", "", "", "test_accuracy", 0.93, 0.91, 0.95),
    ("none", "", "", "loss", "auc", 0.75, 0.71, 0.79),
    ("none", "", "", "loss", "balanced_accuracy", 0.68, 0.65, 0.71),
    ("none", "", "", "gap", "auc", 0.60, 0.58, 0.62),
    ("diffence", "3", "paper", "", "test_accuracy", 0.93, 0.91, 0.95),
    ("diffence", "3", "paper", "", "fallback_rate", 0.04, np.nan, np.nan),
    ("diffence", "3", "paper", "loss", "auc", 0.58, 0.54, 0.62),
    ("diffence", "3", "paper", "loss", "auc_change", -0.17, -0.2, -0.1),
    ("diffence", "3", "paper", "gap", "auc", 0.60, 0.58, 0.62),
    ("diffence", "3", "paper", "gap", "auc_change", 0.0, 0.0, 0.0),
    ("diffence", "3", "paper", "gap", "tpr_at_fpr", 0.01, 0.0, 0.02),
)


def test_rows_come_from_tidy_results():
    undefended, scenario = reports.setting_rows(tidy(*TIDY))
    assert (undefended.setting, undefended.attack, undefended.auc) == ("undefended", "loss", Estimate(0.75, 0.71, 0.79))
    assert undefended.attack_accuracy == Estimate(0.68, 0.65, 0.71)
    assert not undefended.auc_change.known
    assert (scenario.setting, scenario.attack, scenario.fallback_rate) == ("scenario 3", "gap", 0.04)
    # The gap attack's own change would say 0, although the strongest attack fell from 0.75 to 0.60.
    assert not scenario.auc_change.known
    strongest = ("diffence", "3", "paper", "strongest", "auc_change", -0.15, -0.2, -0.1)
    rows = reports.setting_rows(tidy(*TIDY, strongest))
    assert rows[1].auc_change == Estimate(-0.15, -0.2, -0.1)
    attacks = reports.attack_rows(tidy(*TIDY, strongest))
    assert [(row.setting, row.attack) for row in attacks] == [
        (setting, attack) for setting in ("undefended", "scenario 3") for attack in ("loss", "gap")
    ]
    assert attacks[2].auc_change.value == -0.17
    assert attacks[3].tpr_at_low_fpr == Estimate(0.01, 0.0, 0.02)
    assert reports.setting_rows(tidy(*[row for row in TIDY if row[3] != "gap"]))[1].auc_change.value == -0.17


def test_the_columns_survive_a_csv_file(tmp_path):
    tidy(*TIDY).to_csv(tmp_path / "results.csv", index=False)
    read = pd.read_csv(tmp_path / "results.csv")
    assert reports.setting_rows(read)[1].setting == "scenario 3"  # although "3" may come back as 3.0
    assert reports.text_table(reports.setting_rows(read)) == reports.text_table(reports.setting_rows(tidy(*TIDY)))


def test_tidy_results_that_cannot_be_one_table_are_refused():
    with pytest.raises(ValueError, match="scenario 3 has more than one gap auc"):
        reports.setting_rows(tidy(*TIDY, TIDY[8]))
    two = tidy(*TIDY)
    two.loc[0, "dataset"] = "cifar10"
    with pytest.raises(ValueError, match="one dataset"):
        reports.setting_rows(two)
    official = ("diffence", "3", "official", "loss", "auc", 0.6, 0.5, 0.7)
    assert [row.setting for row in reports.setting_rows(tidy(*TIDY, official))] == [
        "undefended",
        "scenario 3 (paper)",
        "scenario 3 (official)",
    ]


@pytest.mark.parametrize(
    ("defense", "scenario", "name"),
    [
        ("none", "", "undefended"),
        ("diffence", "1", "scenario 1"),
        ("diffence", "logits", "averaging of logits"),
        ("hamp", "", "hamp"),
        ("hamp + diffence", "3", "hamp + diffence + scenario 3"),
    ],
)
def test_names_of_settings(defense, scenario, name):
    assert reports.setting_name(defense, scenario) == name


# ---- figures -----------------------------------------------------------------------------------------------------


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture.data)).convert("RGB")).astype(int)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_images_are_shown_as_they_are(channels, kind):
    images = np.zeros((1, channels, 2, 2))
    images[0, :, 0, 1], images[0, :, 1, 0] = 1.0, 0.2
    if channels == 3:
        images[0, :, 1, 1] = (1.0, 0.4, 0.0)
    shown = (images * 255).round().astype(np.uint8) if kind is np.uint8 else images.astype(kind)
    picture = figures.image_grid(ImageGrid(shown, shown[:, None]))
    found = pixels(picture)
    assert found.shape == (2 * picture.height, 2 * picture.width, 3)
    for value in ((255, 102, 0), (51, 51, 51)) if channels == 3 else ((51, 51, 51),):
        # Nearest neighbour: squares of exactly this value, one in the original and one in the reconstruction.
        spots = (found == value).all(axis=2)
        assert spots.sum() > 2 * 80 * 80
        assert spots[:, : picture.width].sum() == pytest.approx(spots[:, picture.width :].sum(), rel=0.1)


def test_the_chosen_reconstruction_is_framed():
    images = np.full((2, 1, 4, 4), 0.5)
    frame = np.array([0xD5, 0x5E, 0x00])
    plain = figures.image_grid(ImageGrid(images, images[:, None].repeat(3, 1), chosen=[-1, -1]))
    assert not (pixels(plain) == frame).all(axis=2).any()
    framed = figures.image_grid(ImageGrid(images, images[:, None].repeat(3, 1), chosen=[-1, 2]))
    y, x = np.nonzero((pixels(framed) == frame).all(axis=2))
    assert y.min() > framed.height  # the second row
    assert x.min() > 1.4 * framed.width  # the last column


@pytest.mark.parametrize(
    ("images", "draws", "more", "match"),
    [
        (np.zeros((2, 8, 8)), np.zeros((2, 3, 1, 8, 8)), {}, "originals: expected"),
        (np.zeros((2, 2, 8, 8)), np.zeros((2, 3, 2, 8, 8)), {}, "1 or 3 channels"),
        (np.zeros((2, 1, 8, 8)), np.zeros((3, 3, 1, 8, 8)), {}, "reconstructions: expected"),
        (np.full((2, 1, 8, 8), 2.0), np.zeros((2, 3, 1, 8, 8)), {}, r"originals: expected values in \[0, 1\]"),
        (np.full((2, 1, 8, 8), np.nan), np.zeros((2, 3, 1, 8, 8)), {}, r"originals: expected values in \[0, 1\]"),
        (np.zeros((2, 1, 8, 8), int), np.zeros((2, 3, 1, 8, 8)), {}, "uint8 or float"),
        (np.zeros((2, 1, 8, 8)), np.zeros((2, 3, 1, 8, 8)), {"captions": ["a"]}, "captions: expected 2"),
        (np.zeros((2, 1, 8, 8)), np.zeros((2, 3, 1, 8, 8)), {"draw_captions": [["a"]] * 2}, "2 rows of 3"),
        (np.zeros((2, 1, 8, 8)), np.zeros((2, 3, 1, 8, 8)), {"chosen": [0, 3]}, "chosen: expected"),
    ],
)
def test_bad_images_are_refused(images, draws, more, match):
    with pytest.raises(ValueError, match=match):
        ImageGrid(images, draws, **more)


def test_roc_alt_text_tells_the_strict_rate():
    curve = RocCurve("undefended", "loss", [0, 0, 0.001, 0.5, 1], [0, 0.02, 0.3, 0.9, 1], 1000, 1000, around(0.8))
    (picture,) = figures.roc_curves([curve])
    assert "undefended AUC 0.800, TPR 2.0% at 0.1% FPR" in picture.alt  # at exactly 0.1% it would be 30%


def test_many_points_make_no_large_figure():
    fpr = np.linspace(0, 1, 200_001)
    curve = RocCurve("undefended", "loss", fpr, np.sqrt(fpr), 100_000, 100_000)
    assert len(figures.roc_curves([curve])[0].data) < 200_000


@pytest.mark.parametrize(
    ("fpr", "tpr", "match"),
    [
        ([0, 1], [0, 0.5, 1], "equally many"),
        ([0, 0.5, 0.4, 1], [0, 0.5, 0.6, 1], "fpr: expected rates"),
        ([0, 1], [0, 1.5], "tpr: expected rates"),
        ([0, 1], [0, np.nan], "tpr: expected rates"),
    ],
)
def test_bad_curves_are_refused(fpr, tpr, match):
    with pytest.raises(ValueError, match=match):
        RocCurve("undefended", "loss", fpr, tpr, 10, 10)


@pytest.mark.parametrize(
    "values",
    [[1.0], [3.0] * 50, [np.inf, -np.inf], [np.nan], [np.inf] * 3 + [1.0], [1e9, -1e9]],
    ids=["one", "equal", "infinite", "nan", "some infinite", "huge"],
)
def test_histograms_take_any_numbers(values):
    pictures = figures.phi_histograms([PhiSample("undefended", values, [0.5]), PhiSample("scenario 3", [1.0], values)])
    assert [picture.format for picture in pictures] == ["svg", "svg"]
    assert "nan" not in pictures[0].alt


def test_one_colour_is_one_setting():
    alone = figures.styles(["scenario 3", "hamp"])
    assert alone["scenario 3"] == figures.styles(SETTINGS)["scenario 3"]
    every = figures.styles([*SETTINGS, "hamp", "selena"])
    assert len({style.color for style in every.values()}) == len(every)
    color = every["scenario 3"].color.lower().encode()
    samples = [PhiSample("scenario 3", [1.0, 2.0], [1.0])]
    for picture in (
        *figures.roc_curves([roc("scenario 3")]),
        *figures.phi_histograms(samples),
        figures.tradeoff([setting_row("scenario 3")]),
    ):
        assert color in picture.data


def test_search_is_a_heat_map_or_a_curve():
    lows, highs = np.array([(low, high) for low in range(4) for high in range(low + 1, 5)], dtype=float).T
    picture = figures.interval_search(IntervalSearch(lows, highs, np.linspace(0.5, 0.1, 10), (1.0, 3.0)))
    assert "Divergence of 10 intervals, from 0.1000 to 0.5000; chosen: 1.00 to 3.00." in picture.alt
    fixed = IntervalSearch([0.0] * 4, [1.0, 2.0, 3.0, 4.0], [0.4, 0.2, np.nan, 0.3], (0.0, 2.0))
    assert "from 0.2000 to 0.4000" in figures.interval_search(fixed).alt
    assert figures.interval_search(IntervalSearch([0.0], [1.0], [np.nan])).alt == "Divergence of 1 intervals."
    with pytest.raises(ValueError, match="one value an interval"):
        IntervalSearch([0.0], [1.0, 2.0], [0.1])


def test_text_in_figures_is_at_least_nine_points():
    sizes = []
    for picture in (
        *figures.roc_curves([roc()]),
        *figures.phi_histograms([PhiSample("undefended", [1.0, 2.0], [0.0])]),
        figures.tradeoff([setting_row()]),
    ):
        svg = picture.data.decode()
        # A glyph is drawn in units of a hundredth of its font size; the root scales points to the page.
        sizes += [
            100 * float(scale) for scale in re.findall(r"translate\([^)]*\) (?:rotate\([^)]*\) )?scale\(([\d.]+)", svg)
        ]
        assert float(re.search(r'width="([\d.]+)pt"', svg)[1]) == pytest.approx(picture.width * 0.75, abs=0.5)
    assert len(sizes) > 20
    assert min(sizes) >= 9


# ---- files -------------------------------------------------------------------------------------------------------


def test_writing_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    small = Report("x", [setting_row()], roc=[roc()])
    reports.write(path, small)
    assert path.read_text(encoding="utf-8") == reports.render(small)
    before = path.read_bytes()

    def full_disk(*_args, **_more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figures, "roc_curves", full_disk)
    with pytest.raises(OSError, match="No space"):
        reports.write(path, dataclasses.replace(small, title="Another"))
    monkeypatch.undo()
    monkeypatch.setattr("pathlib.Path.write_text", full_disk)
    with pytest.raises(OSError, match="No space"):
        reports.write(path, Report("Another", [SettingRow("undefended")]))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_pictures_can_be_saved(tmp_path):
    picture = figures.image_grid(grid(3))
    picture.save(tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as read:
        assert read.size == (2 * picture.width, 2 * picture.height)
    assert picture.width == pytest.approx(96 * 5 * 1.12 + 0.15 * 96, abs=1)
