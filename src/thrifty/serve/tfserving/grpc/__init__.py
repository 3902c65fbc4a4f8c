"""TensorFlow Serving's gRPC services: prediction and the state of models, answered as the REST API is.

Source: tensorflow_serving/servables/tensorflow/predict_util.cc, model_servers/get_model_status_impl.cc and
servables/tensorflow/get_model_metadata_impl.cc. The .proto files beside this have the packages, names and numbers of
TensorFlow's own, so that stubs made of those speak to this server.
"""
