import pytest

from redserve.server.targets import Target, is_open_inference, target_of

MODEL = "/v2/models/{model}/infer"
VERSION = "/v2/models/{model}/versions/{version}/infer"


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/predict", Target("/predict")),
        ("/predict/digits", Target("/predict/{model}", "digits")),
        ("/v2/models/digits/infer", Target(MODEL, "digits", is_open_inference=True)),
        ("/v2/models/infer/infer", Target(MODEL, "infer", is_open_inference=True)),
        ("/v2/models/digits/versions/3/infer", Target(VERSION, "digits", "3", is_open_inference=True)),
    ],
)
def test_a_path_of_inference_names_model_and_version(path, target):
    assert target_of(path) == target


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/predict/", "/predict/a/b", "/Predict", "//predict", "predict", "", "/predict/digits/"),
        *(
            "/v2",
            "/v2/",
            "/v2/infer",
            "/v2/models/infer",
            "/v2/models//infer",
            "/v2/models/digits",
            "/v2/models/a/b/infer",
        ),
        *("/v2/models/a/versions/infer", "/v2/models/a/versions//infer", "/v2/models/a/version/3/infer"),
        *(
            "/v2/models//versions/3/infer",
            "/v2/models/a/versions/3/4/infer",
            "/v2/models/a/infer/",
            "/v2/models/a/ready",
        ),
    ],
)
def test_no_other_path_is_one_of_inference(path):
    assert target_of(path) is None


def test_a_path_below_v2_belongs_to_the_open_inference_protocol():
    assert [path for path in ("/v2", "/v2/", "/v2/x", "/v2x", "/v1", "/", "/a/v2") if is_open_inference(path)] == [
        "/v2",
        "/v2/",
        "/v2/x",
    ]
