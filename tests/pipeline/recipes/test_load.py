"""The recipe is strict, says what it knows, and --set reaches every value."""

import difflib
from pathlib import Path

import pytest
import tomli_w

from pipeline.recipes.load import BUNDLED, bundled, choose_recipe, load_recipe, parse_recipe, set_over
from pipeline.recipes.schema import RecipeError
from tests.support.paths import ROOT

SMALL = """
[filter]
rules = [{ use = "size", min_side = 100 }, { use = "text", min_words = 2 }]
[score]
use = ["aesthetic_v2"]
[score.clip]
weights = "stand-in"
[score.aesthetic_v2]
weights = "stand-in"
[tier.pretrain]
size = 64
rules = [{ use = "aesthetic", min = 4.75, model = "v2" }]
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "r.toml"

    def read(*sets, text=SMALL):
        path.write_text(text)
        return load_recipe(path, sets)

    return read


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_recipes_are_valid(name):
    assert load_recipe(bundled(name)) == load_recipe(name)


def test_defaults_are_the_designs(recipe):
    read = recipe()
    assert (read.fetch.deadline_s, read.fetch.max_bytes, read.fetch.max_redirects, read.fetch.max_pixels) == (
        20,
        50_000_000,
        5,
        100_000_000,
    )
    assert read.pretokenize.vq == "VQ-16"
    assert read.train.model == "GPT-XL"
    assert read.dedup.radius == 6


def test_set_reaches_values_tables_and_rules_by_name(recipe):
    read = recipe(
        "tier.pretrain.rules.aesthetic.min=5.0",
        "filter.rules.text.min_words=3",
        "caption.batch_size=64",
        "output.root=a/b",
        "tier.x.size=32",
    )
    assert read.tier["pretrain"].rules[0]["min"] == 5.0
    assert read.filter.rules[1]["min_words"] == 3
    assert read.caption.batch_size == 64
    assert read.output.root == "a/b"
    assert read.tier["x"].size == 32


def test_store_side_is_eleven_tenths_of_the_largest_tier(recipe):
    assert recipe("tier.big.size=512").store_side == 564  # 563.2 rounded up
    assert recipe("fetch.store_side=300").store_side == 300


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["fetch.deadlin_s=3"], ["unknown key 'fetch.deadlin_s'", "deadline_s", "max_bytes"]),
        (["nonsense=3"], ["unknown key 'nonsense'", "pretokenize"]),
        (["tier.pretrain.sice=3"], ["unknown key 'tier.pretrain.sice'", "size", "caption"]),
        (["caption.batchsize=3"], ["batchsize", "batch_size"]),
        (["tier.pretrain.size=big"], ["tier.pretrain.size", "'big'"]),
        (["filter.rules.colour.min=3"], ["no rule 'colour'", "size, text"]),
        (["novalue"], ["KEY=VALUE"]),
        (["filter.rules.size=3"], ["'size' is a rule"]),
        (["tier.pretrain.rules.aesthetic.mni=3"], ["tier.pretrain.rules[0]", "mni", "min"]),
        (["tier.pretrain.rules.aesthetic.model=v3"], ["v3", "v1", "v2"]),
        (["score.use=[]"], ["'aesthetic_v2'", "neither the input has nor a head"]),
        (['score.use=["nohead"]'], ["no head 'nohead'", "conse"]),
        (["pretokenize.t5_caption=nope"], ["'nope'", "alt, top_caption"]),
        (["pretokenize.scales=[1.1, 1.1]"], ["each scale once"]),
        (["pretokenize.shard_rows=99999999999999999999"], ["shard_rows", "1000000000"]),
        (['fetch.allow_addresses=["house"]'], ["fetch.allow_addresses", "house"]),
        (["filter.rules=[3]", "filter.rules.x.min=1"], ["no rule 'x' here; the rules are none"]),
        (["filter.rules=[[3]]", "filter.rules.x.min=1"], ["no rule 'x' here; the rules are none"]),
        ([f"output.root={'[' * 3000}"], ["--set output.root: no value can be read"]),
        ([f"output.root={'9' * 5000}"], ["--set output.root: no value can be read"]),
        ([f"output.root={'[' * 40 + ']' * 40}"], ["output: tables and lists stand in each other more than 32 deep"]),
        ([f"filter.rules={'[' * 40 + ']' * 40}"], ["filter: tables and lists"]),
        (["fetch.deadline_s=inf"], ["fetch.deadline_s: got inf, wanted a finite number"]),
        (["fetch.max_wait_s=Infinity"], ["fetch.max_wait_s: got inf, wanted a finite number"]),
        (["fetch.breaker_rest_s=inf"], ["fetch.breaker_rest_s: got inf"]),
        (["filter.rules=[{use='size',min_side=-inf}]"], ["filter.rules.0.min_side: got -inf"]),
        ([f"input.limit={'9' * 26}"], ["input.limit: got a number of 87 bits", "9223372036854775807"]),
        ([f"train.batch='{'9' * 26}'"], ["train.batch: got a number of 87 bits"]),
        ([f"fetch.shard_rows={'9' * 26}"], ["fetch.shard_rows", "less than or equal to 1000000000"]),
        (["caption.batch_size=65537"], ["caption.batch_size", "less than or equal to 65536"]),
        (["score.batch_size=65537"], ["score.batch_size", "less than or equal to 65536"]),
        (["score.decoders=1025"], ["score.decoders", "less than or equal to 1024"]),
        ([f"filter.rules=[{{use='size',min_side={'9' * 26}}}]"], ["filter.rules.0.min_side: got a number of 87"]),
        *(
            ([f'{key}="a\\u0000"'], [f"{key}", "'a\\x00', wanted a text without NUL"])
            for key in ("filter.exclude", "filter.python", "dedup.placeholders", "decontaminate.images")
        ),
        (['input.files="\\u0000"'], ["input.files: got '\\x00', wanted a text without NUL"]),
        (['output.root="\\u0000"'], ["output.root: got"]),
        (
            ["input.columns={'a'='x', \"b\\u0000\"='y'}"],
            ["input.columns.a key: got 'b\\x00', wanted a text without NUL"],
        ),
        (["filter.exclude={file='a.txt',nokey=1}"], ["filter.exclude", "nokey"]),
        (["dedup.placeholders={file='a.txt'}"], ["dedup.placeholders"]),
        (["score.clip.nokey=1"], ["recipe: score.clip: unknown key 'nokey'; known keys: model"]),
    ],
)
def test_faults_say_what_was_got_and_the_choices(recipe, sets, says):
    with pytest.raises(RecipeError) as error:
        recipe(*sets)
    for part in says:
        assert part in str(error.value)


def test_a_fault_of_a_whole_table_does_not_repeat_it(recipe):
    with pytest.raises(RecipeError) as error:
        recipe("train.cooldown=0.5")
    assert str(error.value) == (
        "recipe: train: Value error, cooldown needs `steps`, and no `seconds`: its end must be known"
    )


def test_of_a_long_value_the_beginning_is_shown(recipe):
    with pytest.raises(RecipeError) as error:
        recipe(f"train.model='{'x' * 300}'")
    assert str(error.value).endswith(f"(got '{'x' * 199}… of 302 characters)")


def test_an_unknown_filter_lists_the_known_ones(recipe):
    with pytest.raises(RecipeError, match=r"filter\.rules\[0\].*sharpness.*aesthetic.*watermark"):
        recipe(text='[filter]\nrules = [{ use = "sharpness" }]\n[tier.a]\nsize = 8\n')


def test_two_rules_of_one_name(recipe):
    with pytest.raises(RecipeError, match="two rules are named 'size'"):
        recipe(text='[filter]\nrules = [{ use = "size" }, { use = "size" }]\n[tier.a]\nsize = 8\n')


@pytest.mark.parametrize("text", ["", "[filter]\nrules = []\n", "[tier]\n"])
def test_a_recipe_without_tiers_is_told_what_one_is(recipe, text):
    with pytest.raises(RecipeError) as error:
        recipe(text=text)
    said, example = str(error.value).split("\n\n")
    assert said.startswith("recipe: no tier: a tier is a set of pairs for one purpose: the side of its square crops")
    assert example == '[tier.pretrain]\nsize = 256\nrules = [{ use = "size", min_side = 256 }]'
    assert recipe(text=text.removeprefix("[tier]\n") + example).tier["pretrain"].size == 256


def test_a_recipe_that_is_not_toml(recipe, tmp_path):
    with pytest.raises(RecipeError, match="not TOML"):
        recipe(text="[filter\n")
    with pytest.raises(RecipeError, match="cannot read"):
        load_recipe(tmp_path / "none.toml")


def test_recipe_toml_of_this_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "bundled demo.toml" in choose_recipe(lambda: True)[1]
    assert "bundled demo_artworks.toml" in choose_recipe(lambda: False)[1]
    (tmp_path / "recipe.toml").write_text(SMALL)
    assert choose_recipe(lambda: True)[1] == "recipe: recipe.toml of this folder"
    assert load_recipe("recipe.toml").tier["pretrain"].size == 64


def test_plain_values_go_through_toml_again(recipe, tmp_path):
    import tomli_w

    read = recipe()
    path = tmp_path / "resolved.toml"
    path.write_text(tomli_w.dumps(read.plain()))
    assert load_recipe(path) == read


NO_TIERS = "tier.pretrain.rules=[]", "tier.finetune.rules=[]"
CLIP = 'score.use=["clip_similarity"]', "score.clip.weights=stand-in", *NO_TIERS


def bound(model):
    return f"filter.rules=[{{use='similarity', column='clip_similarity', min=0.2, model='{model}'}}]"


def test_a_bound_names_the_scale_of_the_clip_that_runs():
    assert load_recipe("laion_coco", [*CLIP, bound("ViT-L-14")]).score.use == ["clip_similarity"]
    load_recipe("laion_coco", [*CLIP, bound("ViT-B-32"), "score.clip.model=ViT-B-32-quickgelu"])
    with pytest.raises(
        RecipeError,
        match=r"means the scale of 'ViT-B-32', but score\.clip\.model fills 'clip_similarity' with 'ViT-L-14'",
    ):
        load_recipe("laion_coco", [*CLIP, bound("ViT-B-32")])
    with pytest.raises(RecipeError, match=r"no head of score\.use runs CLIP; heads that do: .*clip_similarity"):
        load_recipe("laion_coco", ["score.embeddings=true", 'score.use=["watermark_laion"]', *NO_TIERS])


def test_laions_heads_want_openais_clip_not_one_as_wide():
    with pytest.raises(
        RecipeError, match=r"trained on OpenAI's ViT-L-14, score\.clip is ViT-L-14-336-quickgelu openai"
    ):
        load_recipe("laion_coco", ["score.clip.model=ViT-L-14-336-quickgelu"])


@pytest.mark.parametrize("name", ["exact_duplicate", "http_404", "has space", "a/b", "removed"])
def test_a_rule_may_not_be_called_like_a_reason_of_the_pipelines_own(name):
    with pytest.raises(RecipeError, match="rule name"):
        load_recipe("laion_coco", [f"filter.rules=[{{use='size', name='{name}'}}]"])


def test_reserved_names_are_the_documented_reasons():
    import re

    from manifests.reasons import RESERVED

    text = (ROOT / "docs" / "reasons.md").read_text()
    documented = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) | set(
        re.findall(r"^\| `\w+`, `(\w+)`", text, re.MULTILINE)
    )
    rules = {"size", "aspect", "text", "language", "similarity", "aesthetic", "watermark", "nsfw", "http_404"}
    assert documented - rules <= RESERVED


def test_a_recipe_resolved_before_the_later_words_obeys_them_and_a_written_list_means_what_it_says() -> None:
    words = ["noai", "noimageai", "noml", "noindex", "noimageindex", "none", "tdmrep"]
    values = parse_recipe({"tier": {"a": {"size": 64}}}).plain()
    of_before = {key: value for key, value in values["fetch"].items() if key not in ("robots_4xx", "keep_metadata")}
    for listed in (words, ["noai"], []):
        later = ["content-signal", "aipref", "xmp", "c2pa"]
        resolved = parse_recipe({**values, "fetch": {**of_before, "opt_outs": listed}})
        assert resolved.fetch.opt_outs == [*listed, *later]
        for fetch in ({"opt_outs": listed}, {**values["fetch"], "opt_outs": listed}):
            assert parse_recipe({**values, "fetch": fetch}).fetch.opt_outs == listed


@pytest.mark.parametrize(
    ("setting", "obeyed"),
    [
        ('fetch.opt_outs=["noai"]', ["noai"]),
        ("fetch.opt_outs=[]", []),
        ('fetch.opt_outs=["noai", "xmp"]', ["noai", "xmp"]),
        ('fetch.robots_4xx="refuse"', ["noai", "content-signal", "aipref", "xmp", "c2pa"]),
        ("fetch.retries=1", ["noai", "content-signal", "aipref", "xmp", "c2pa"]),
    ],
)
def test_what_is_set_over_a_recipe_resolved_before_the_later_words_holds(
    tmp_path: Path, setting: str, obeyed: list[str]
) -> None:
    values = parse_recipe({"tier": {"a": {"size": 64}}, "fetch": {"opt_outs": ["noai"]}}).plain()
    del values["fetch"]["robots_4xx"]
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(values))
    assert load_recipe(tmp_path / "recipe.toml", [setting]).fetch.opt_outs == obeyed
    for words in (["noai"], ["noai", "content-signal", "aipref", "xmp", "c2pa"]):
        values["fetch"]["opt_outs"] = words
        assert parse_recipe(set_over(values, [setting])).fetch.opt_outs == obeyed


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ('[{file="x.csv",kind="sha9"}]', "filter.exclude.0.kind: Input should be 'uid', 'url', 'host', "),
        ('{file="x.csv",kind="sha9"}', "filter.exclude.kind: Input should be 'uid', 'url', 'host', "),
        (
            '["a.txt", {file="x.csv",knd="url"}]',
            "unknown key 'filter.exclude.1.knd'; known keys of [filter.exclude.1]: file, kind, radius",
        ),
        ('[{kind="url"}]', "filter.exclude.0.file: Field required"),
    ],
)
def test_a_wrong_list_is_told_of_as_the_list_that_it_is(value: str, says: str) -> None:
    data: dict[str, object] = {"input": {"dataset": "laion-coco", "files": ["x"]}, "tier": {"a": {"size": 256}}}
    with pytest.raises(RecipeError) as raised:
        parse_recipe(set_over(data, [f"filter.exclude={value}"]))
    assert says in str(raised.value)
    assert "union" not in str(raised.value)
    assert "valid string" not in str(raised.value)


def test_the_second_stage_of_laion_coco_differs_in_three_lines():
    """Its comment, its tier, and where it starts; whatever makes the codes is the same run."""
    first, second = (bundled(name).read_text().splitlines() for name in ("laion_coco", "laion_coco_512"))
    changed = [line for line in difflib.ndiff(first, second) if line.startswith(("+ ", "- "))]
    assert len(changed) == 5
    one, two = load_recipe("laion_coco"), load_recipe("laion_coco_512")
    assert one.model_dump(exclude={"train"}) == two.model_dump(exclude={"train"})
    assert (two.train.tier, two.tier["finetune"].size) == ("finetune", 512)
    assert two.train.init_from == f"{one.output.root}/train/{one.train.tier}/checkpoints"
    assert two.train.rope_cond == one.train.rope_cond
