#include "vmm/dirty.h"

#include <string.h>

#include "base/auto.h"
#include "base/str.h"

int dirty_start(struct machine *m, struct err *err)
{
        uint64_t words = dirty_words(m);
        if (!m->memory.dirty)
                m->memory.dirty = xcalloc(words, sizeof(*m->memory.dirty));
        int r = m->cpu->sync_dirty(m, err);
        memset(m->memory.dirty, 0, words * sizeof(*m->memory.dirty));
        return r;
}

int dirty_take(struct machine *m, uint64_t *ret, struct err *err)
{
        size_t size = dirty_words(m) * sizeof(*ret);
        int r = m->cpu->sync_dirty(m, err);
        if (r < 0)
                return r;
        memcpy(ret, m->memory.dirty, size);
        memset(m->memory.dirty, 0, size);
        return 0;
}
