"""OpenVINO as a student's engine, by the package openvino-genai (extra ``openvino``)."""
