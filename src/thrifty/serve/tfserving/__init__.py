"""TensorFlow Serving's REST API, version 1: predict, classify, regress, status and metadata, its texts and its codes.

Source: tensorflow_serving/model_servers/http_rest_api_util.cc, http_rest_api_handler.cc and util/json_tensor.cc.

A model's signatures are the ways in which it takes input. ``serving_default`` takes all of them: of an image
``{"b64": file}`` or nested pixels, of a text its string, of a row of a table its cells by their columns; the others,
``pixels`` of images and ``row`` of tables, take the input of that name alone. NaN and Infinity are numbers, in requests
and in answers; what follows the JSON object is ignored.
"""

from thrifty.serve.tfserving.replies import error_reply
from thrifty.serve.tfserving.routes import ask_for, look_up, owns

__all__ = ["ask_for", "error_reply", "look_up", "owns"]
