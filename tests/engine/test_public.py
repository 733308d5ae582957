import subprocess
import sys

import redserve.engine


def test_the_public_names_are_sorted_and_there():
    names = redserve.engine.__all__
    assert names == sorted(names)
    assert all(hasattr(redserve.engine, name) for name in names)


def test_importing_the_room_does_not_import_onnx_runtime():
    code = "import sys, redserve.engine; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
