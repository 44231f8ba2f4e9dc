"""The shapes of an outline are those of the network, and finding them loads no compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from semcut.connector.models.backbones import build_backbone
from semcut.connector.models.layer_shapes import outputs_of


@pytest.mark.parametrize("name", ["small", "alexnet", "resnet18", "mobilenet_v3_small", "swin_t", "regnet_y_400mf"])
def test_an_outline_has_the_shapes_of_the_network(name):
    with torch.device("meta"):
        outline = build_backbone(name, 96).eval()
    network = build_backbone(name, 96).eval()
    with torch.no_grad():
        found = outputs_of(outline, (3, 96, 96))
        expected = network(torch.zeros(1, 3, 96, 96))
    assert [one.shape[1:] for one in found] == [one.shape[1:] for one in expected]
    assert all(parameter.is_meta for parameter in outline.parameters())


def test_a_layer_that_takes_no_empty_batch_is_run_all_the_same():
    class Choosy(torch.nn.Module):
        def forward(self, images):
            if not len(images):
                raise RuntimeError("no images")
            return images[:, :1]

    assert outputs_of(Choosy(), (3, 4, 4)).shape == (1, 1, 4, 4)


def test_images_that_are_too_small_are_refused():
    with torch.device("meta"):
        outline = build_backbone("alexnet", 96).eval()
    with pytest.raises(RuntimeError):
        outputs_of(outline, (3, 8, 8))


def test_opening_a_network_loads_no_compiler():
    script = """
        import sys
        from semcut.connector.models.network import Architecture, SemanticHashNet
        SemanticHashNet.outline(Architecture(backbone="small", classes=["a", "b"], bits=64, image_size=32))
        print([name for name in ("sympy", "torch._dynamo") if name in sys.modules])
    """
    lines = "\n".join(line.strip() for line in script.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("[]\n", "")
