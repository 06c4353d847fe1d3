"""The second encoder of a model upgrade, as the README makes it from the first one."""

from __future__ import annotations

import copy
import re

import jq
import kubernetes_validate

from tests.support.rendered import DEPLOY, Rendered

README = (DEPLOY.parent / "README.md").read_text(encoding="utf-8")


def test_the_second_encoder_is_the_first_with_another_model(rendered: Rendered) -> None:
    """It is a valid Deployment whose pods are its own, with the new image and path, and all else as it was."""
    first = copy.deepcopy(rendered.named("Deployment", "encoder"))
    (program,) = re.findall(r"\| jq --arg image \S+ --arg model \S+ '(.*?)' \|\n", README, flags=re.DOTALL)
    running = first | {"metadata": first["metadata"] | {"uid": "u", "resourceVersion": "1"}, "status": {"replicas": 1}}
    container = first["spec"]["template"]["spec"]["containers"][0]
    container["env"].append({"name": "FRESHET_MODEL_PATH", "value": "/models/old"})

    second = jq.compile(program, args={"image": "freshet:next", "model": "/models/next"}).input_value(running).first()

    kubernetes_validate.validate(second, kubernetes_validate.latest_version(), strict=True)
    wanted = second["spec"]["selector"]["matchLabels"]
    assert second["metadata"]["name"] == "encoder-next"
    assert not wanted.items() <= first["spec"]["template"]["metadata"]["labels"].items()
    assert wanted.items() <= second["spec"]["template"]["metadata"]["labels"].items()
    changed = second["spec"]["template"]["spec"]["containers"][0]
    assert changed["image"] == "freshet:next"
    assert [one for one in changed["env"] if one["name"] == "FRESHET_MODEL_PATH"] == [
        {"name": "FRESHET_MODEL_PATH", "value": "/models/next"}
    ]
    kept = {name: value for name, value in container.items() if name not in {"image", "env"}}
    assert kept == {name: value for name, value in changed.items() if name not in {"image", "env"}}
