"""Train a `SemanticHashNet` on labelled images.

    train_config      `TrainConfig`: every setting of a training; the learning rate of each step
    default_network   choose backbone, weights and image size where none are given
    loop              `train`: run the epochs, keep the best one, write the checkpoint
    batches           read labelled images in batches; augment them at random
    warm_start        load a trained network, from which a new training starts
    frozen_features   compute the outputs of a frozen backbone once, and cache them
    validation        measure the network on validation images after an epoch
    calibration       fit the temperature of the probabilities on the validation images
    run_directory     check and begin a run directory, which an early failure removes again
    run_state         write and read the state from which a stopped training resumes

Commands call `loop.train` with a `TrainConfig`. `reproduce` also uses `frozen_features`, to encode images with several
networks that have the same frozen backbone. Networks, backbones and losses are in `models`.
"""
