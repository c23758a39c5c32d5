/* The memory of translated code: one memory, mapped twice, to be written and to be executed. */
#include "cpu/translate.h"

#include <sys/mman.h>

#define LARGE_PAGE ((size_t)2 << 20)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* Addresses with nothing there, from which a large page can begin. */
static void *reserve(void)
{
        size_t size = TRANSLATE_CODE_BYTES + LARGE_PAGE;
        uint8_t *all = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                            0);
        if (all == MAP_FAILED)
                return NULL;
        size_t before = -(uintptr_t)all & (LARGE_PAGE - 1);
        if (before > 0)
                munmap(all, before);
        munmap(all + before + TRANSLATE_CODE_BYTES, LARGE_PAGE - before);
        return all + before;
}

static void *map_file(int fd, int protection)
{
        void *at = reserve();
        if (!at)
                return NULL;
        int how = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
        if (mmap(at, TRANSLATE_CODE_BYTES, protection, how | MAP_FIXED, fd, 0) != MAP_FAILED)
                return at;
        munmap(at, TRANSLATE_CODE_BYTES);
        return NULL;
}

/* The same memory, to be executed. For a profile it has no file: of memory that has one perf(1)
 * looks for symbols there. */
static void *map_again(void *w)
{
        void *x = reserve();
        if (!x)
                return NULL;
        if (mremap(w, 0, TRANSLATE_CODE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, x) != MAP_FAILED &&
            mprotect(x, TRANSLATE_CODE_BYTES, PROT_READ | PROT_EXEC) == 0)
                return x;
        munmap(x, TRANSLATE_CODE_BYTES);
        return NULL;
}

int cpu_code_memory_create(struct translator *t, bool nameless, struct err *err)
{
        auto_fd fd = nameless ? -1 : memfd_create("isle-translations", MFD_CLOEXEC);
        if (!nameless && (fd < 0 || ftruncate(fd, TRANSLATE_CODE_BYTES) < 0))
                return err_set(err, errno, "memory for translated code");
        t->writable = map_file(fd, PROT_READ | PROT_WRITE);
        if (t->writable)
                t->executable = nameless ? map_again(t->writable)
                                         : map_file(fd, PROT_READ | PROT_EXEC);
        if (!t->executable)
                return err_set(err, ENOMEM, "map memory for translated code");
        return 0;
}

void cpu_code_memory_destroy(struct translator *t)
{
        if (t->writable)
                munmap(t->writable, TRANSLATE_CODE_BYTES);
        if (t->executable)
                munmap((void *)(uintptr_t)t->executable, TRANSLATE_CODE_BYTES);
}

void cpu_code_memory_fill(struct translator *t, uint32_t used)
{
        t->used = used;
        /* As long as one large page would do it is not known whether it will be worth one. */
        uint32_t begun = (used + LARGE_PAGE - 1) & ~(uint32_t)(LARGE_PAGE - 1);
        if (begun <= LARGE_PAGE || begun <= t->large)
                return;
        /* Where the host cannot, pages stay small. */
        (void)madvise((void *)(uintptr_t)(t->executable + t->large), begun - t->large,
                      MADV_COLLAPSE);
        t->large = begun;
}
