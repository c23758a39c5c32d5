/* Numbers for objects that a stranger may name: a bounded table whose numbers say
 * slot and generation, so that one that was given back names nothing any more.
 * The first object put in has number 1. Not thread-safe. */
#pragma once

#include <stdint.h>

struct slot {
        void *object; /* NULL: free */
        uint32_t generation;
        uint32_t next_free; /* slot + 1; 0 ends */
};

struct slots {
        struct slot *slots;
        uint32_t length, capacity, max;
        uint32_t free; /* as next_free */
};

void slots_init(struct slots *slots, uint32_t max);
void slots_finish(struct slots *slots);
/* 0 or -ENFILE. */
int slots_add(struct slots *slots, void *object, uint64_t *ret_number);
/* Puts it under a number that another table gave it; slots_settle() follows when all are there.
 * -ENFILE where that is beyond the limit, -EEXIST where the place is taken, -EINVAL for 0. */
int slots_put(struct slots *slots, uint64_t number, void *object);
/* Numbers given from here on name nothing that any slots_put() has named. */
void slots_settle(struct slots *slots);
/* NULL where the number names nothing. */
void *slots_get(const struct slots *slots, uint64_t number);
void slots_remove(struct slots *slots, uint64_t number);
