#include "vmm/fs/slots.h"

#include <errno.h>
#include <stdlib.h>

#include "base/str.h"

void slots_init(struct slots *s, uint32_t max)
{
        *s = (struct slots){ .max = max };
}

void slots_finish(struct slots *s)
{
        free(s->slots);
        *s = (struct slots){ 0 };
}

static int grow(struct slots *s)
{
        uint32_t capacity = s->capacity ? 2 * s->capacity : 64;
        if (s->length >= s->max)
                return -ENFILE;
        struct slot *slots = realloc(s->slots, (size_t)capacity * sizeof(*slots));
        if (!slots)
                return -ENFILE;
        s->slots = slots;
        s->capacity = capacity;
        return 0;
}

int slots_add(struct slots *s, void *object, uint64_t *ret)
{
        uint32_t i;
        if (s->free) {
                i = s->free - 1;
                s->free = s->slots[i].next_free;
        } else {
                if ((s->length >= s->capacity || s->length >= s->max) && grow(s) < 0)
                        return -ENFILE;
                i = s->length++;
                s->slots[i] = (struct slot){ 0 };
        }
        s->slots[i].object = object;
        *ret = (uint64_t)s->slots[i].generation << 32 | (i + 1);
        return 0;
}

int slots_put(struct slots *s, uint64_t number, void *object)
{
        uint32_t place = (uint32_t)number;
        if (!place)
                return -EINVAL;
        if (place > s->max)
                return -ENFILE;
        while (s->capacity < place)
                if (grow(s) < 0)
                        return -ENFILE;
        while (s->length < place)
                s->slots[s->length++] = (struct slot){ 0 };
        struct slot *slot = &s->slots[place - 1];
        if (slot->object)
                return -EEXIST;
        *slot = (struct slot){ .object = object, .generation = (uint32_t)(number >> 32) };
        return 0;
}

void slots_settle(struct slots *s)
{
        uint32_t generation = 0;
        for (uint32_t i = 0; i < s->length; i++)
                if (s->slots[i].object && s->slots[i].generation >= generation)
                        generation = s->slots[i].generation + 1;
        s->free = 0;
        for (uint32_t i = s->length; i-- > 0;) {
                struct slot *slot = &s->slots[i];
                if (slot->object)
                        continue;
                *slot = (struct slot){ .generation = generation, .next_free = s->free };
                s->free = i + 1;
        }
}

static struct slot *find(const struct slots *s, uint64_t number)
{
        uint32_t i = (uint32_t)number - 1; /* 0 wraps to what no table reaches */
        if (i >= s->length || !s->slots[i].object || s->slots[i].generation != number >> 32)
                return NULL;
        return &s->slots[i];
}

void *slots_get(const struct slots *s, uint64_t number)
{
        const struct slot *slot = find(s, number);
        return slot ? slot->object : NULL;
}

void slots_remove(struct slots *s, uint64_t number)
{
        struct slot *slot = find(s, number);
        if (!slot)
                return;
        slot->object = NULL;
        slot->generation++;
        slot->next_free = s->free;
        s->free = (uint32_t)number;
}
