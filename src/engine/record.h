/* The stored form of an instance: JSON under "instances/ID". Pure; fuzzed. */
#pragma once

#include "engine/instance.h"

#define RECORD_VERSION 1

char *instance_record_encode(const struct instance *instance);
/* Fills a new instance's public members. Text of another version, a bad id or state is
 * -EBADMSG. On failure nothing is left allocated. */
int instance_record_decode(const char *text, size_t size, struct instance *ret, struct err *err);
/* Frees the public members. */
void instance_record_finish(struct instance *instance);
