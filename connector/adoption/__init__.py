"""Adopt a network that exists: make a model directory of it without training, so that it can encode images.

    adopt               `adopt`: the whole way from a network to a checkpoint
    named_network       find the network that a user names, in whichever library, and load its weights
    model_directories   directories of timm and of transformers
    onnx_outputs        which outputs of a file of ONNX are logits and features
    code_fitting        fit what turns features into shorter features and codes
    head_fitting        train a head on the features of labelled images
    sample              run the network on images, and compute with what it says of them

The networks themselves are in `connector.models.adopted_network`.
"""
