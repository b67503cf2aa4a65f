"""Keras networks as OpenVINO IR: whole ones, and a head set on a base that was converted before."""

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imagesieve.errors import EngineError
from imagesieve.model import engines


def write_ir(model: Any, xml: Path) -> None:
    """Write a Keras model as OpenVINO IR, weights in single precision.

    By way of a SavedModel: what Keras calls its OpenVINO export goes through a converter that, in
    OpenVINO 2026.4, fails on Python 3.13 (it deletes a name that `exec` no longer leaves behind).
    The IR's outputs are in the order of the model's; its folder is made. An EngineError is raised
    if OpenVINO does not know one of the model's operations.
    """
    openvino = engines.import_openvino()
    # A list of outputs is exported as output_0, output_1 and so on, whatever the layers' names are.
    listed = keras.Model(model.inputs, list(model.outputs))
    xml.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saved-model-", dir=xml.parent) as folder:
        listed.export(folder, format="tf_saved_model", verbose=False)
        converted = read(Path(folder))
        # A SavedModel has no order of its outputs.
        sources = [
            converted.output(f"output_{number}").get_node().input_value(0)
            for number in range(len(converted.outputs))
        ]
        results = [openvino.opset13.result(source) for source in sources]
        converted = openvino.Model(results, converted.get_parameters())
        # `save_model` would halve the weights' precision unless told not to.
        openvino.save_model(converted, xml, compress_to_fp16=False)


def read(path: Path) -> Any:
    """Return an OpenVINO model, which outlives its files, or raise an EngineError."""
    openvino = engines.import_openvino()
    try:
        return openvino.Core().read_model(path)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-300:]
        raise EngineError(f"OpenVINO cannot read the network in {path}: {reason}") from error


def write_with_head(base: Any, head: Any, xml: Path) -> None:
    """Set a head on a converted base: what `write_ir` would give for the whole, in no time.

    The last output of the base, from `read`, are pooled features (batch, num_features), of which
    the Keras model `head` makes probabilities. An EngineError is raised for an unknown layer in it.
    """
    openvino = engines.import_openvino()
    tensor = base.outputs[-1].get_node().input_value(0)
    for layer in head.layers:
        tensor = _after_layer(openvino, tensor, layer)
    xml.parent.mkdir(parents=True, exist_ok=True)
    whole = openvino.Model([openvino.opset13.result(tensor)], base.get_parameters())
    openvino.save_model(whole, xml, compress_to_fp16=False)


def _after_layer(openvino: Any, tensor: Any, layer: Any) -> Any:
    ops = openvino.opset13
    match layer:
        case keras.layers.InputLayer() | keras.layers.Dropout():
            return tensor
        case keras.layers.BatchNormalization(center=False, scale=False):
            mean, variance = layer.get_weights()
            factor = 1 / np.sqrt(variance.astype(np.float64) + layer.epsilon)
            centred = ops.subtract(tensor, ops.constant(mean[np.newaxis]))
            return ops.multiply(centred, ops.constant(factor.astype(np.float32)[np.newaxis]))
        case keras.layers.Dense(activation=keras.activations.relu):
            return ops.relu(_dense(ops, tensor, layer))
        case keras.layers.Dense(activation=keras.activations.softmax):
            return ops.softmax(_dense(ops, tensor, layer), 1)
    raise EngineError(f"the head's layer {layer.name} has no counterpart in OpenVINO here")


def _dense(ops: Any, tensor: Any, layer: Any) -> Any:
    kernel, bias = layer.get_weights()
    product = ops.matmul(tensor, ops.constant(kernel), False, False)
    return ops.add(product, ops.constant(bias[np.newaxis]))
