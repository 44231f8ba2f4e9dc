"""Train a `SemanticHashNet` on labelled images.

    train_config      `TrainConfig`, every setting of a training, and the learning rate of a step
    loop              `train`: run the epochs, keep the best one, write the checkpoint
    batches           read labelled images in batches; augment them at random
    warm_start        load the trained network that a training starts from
    frozen_features   compute the outputs of a frozen backbone once, and cache them
    validation        measure the network on validation images after an epoch
    calibration       fit the temperature of the probabilities on the validation images
    run_state         write and read the state that a stopped training resumes from

Commands call `loop.train` with a `TrainConfig`; `frozen_features` also serves encoders that run many images through one
frozen backbone. Networks themselves, backbones and losses are in `models`.
"""
