/* What an image says its containers run with, under what the user says. Pure. */
#pragma once

#include "engine/spec.h"
#include "oci/image_spec.h"

/* Completes `config`. */
void config_merge(struct instance_config *config, const struct oci_execution *image,
                  char ***warnings);
