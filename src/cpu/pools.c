/* The memory of decoded and translated code: the blocks and steps of a vCPU, taken
 * in order and given back all at once. */
#include "cpu/profile.h"
#include "cpu/translate.h"

#include <sys/mman.h>

#define BLOCKS_BYTES (BLOCK_POOL * sizeof(struct block))
#define STEPS_BYTES  (STEP_POOL * sizeof(struct step))
#define BUCKET_BYTES (BLOCK_BUCKETS * sizeof(struct block_bucket))

static void *map(size_t size)
{
        void *at = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED)
                return NULL;
        /* Taken from the start without gaps, so little of a large page is wasted. */
        (void)madvise(at, size, MADV_HUGEPAGE);
        return at;
}

int cpu_pools_create(struct cpu *cpu, struct err *err)
{
        cpu->blocks = map(BLOCKS_BYTES);
        cpu->steps = map(STEPS_BYTES);
        cpu->buckets = map(BUCKET_BYTES);
        if (!cpu->blocks || !cpu->steps || !cpu->buckets)
                return err_set(err, ENOMEM, "memory for the code of vCPU %u", cpu->index);
        return 0;
}

void cpu_pools_destroy(struct cpu *cpu)
{
        if (cpu->blocks)
                munmap(cpu->blocks, BLOCKS_BYTES);
        if (cpu->steps)
                munmap(cpu->steps, STEPS_BYTES);
        if (cpu->buckets)
                munmap(cpu->buckets, BUCKET_BYTES);
}

static size_t bytes_in_use(const struct cpu *cpu)
{
        const struct translator *t = &cpu->translator;
        return cpu->blocks_used * sizeof(struct block) + cpu->steps_used * sizeof(struct step) +
               t->used + t->stubs_used + t->exits_length * sizeof(*t->exits) +
               t->faults_length * sizeof(*t->faults);
}

void cpu_pools_flush(struct cpu *cpu)
{
        size_t size = bytes_in_use(cpu);
        if (size > cpu->code_bytes)
                cpu->code_bytes = size;
        cpu->blocks_used = cpu->steps_used = 0;
        if (cpu->profile)
                cpu_profile_flushed(cpu);
}

size_t cpu_code_bytes(const struct cpu *cpu)
{
        size_t size = bytes_in_use(cpu);
        return size > cpu->code_bytes ? size : cpu->code_bytes;
}

/* What fails keeps memory that is not needed, which is no harm. */
static void release(void *at, size_t size, int advice)
{
        if (at)
                (void)madvise(at, size, advice);
}

void cpu_trim(struct cpu *cpu)
{
        struct translator *t = &cpu->translator;
        size_t kept = (t->fixed + PAGE_SIZE_BYTES - 1) & ~(size_t)PAGE_MASK;
        cpu_code_flush(cpu);
        cpu_jumps_trim(cpu);
        release(cpu->blocks, BLOCKS_BYTES, MADV_DONTNEED);
        release(cpu->steps, STEPS_BYTES, MADV_DONTNEED);
        release(cpu->buckets, BUCKET_BYTES, MADV_DONTNEED);
        if (t->on) {
                release(t->exits, TRANSLATE_EXITS * sizeof(*t->exits), MADV_DONTNEED);
                release(t->faults, TRANSLATE_FAULTS * sizeof(*t->faults), MADV_DONTNEED);
                /* One memory under two mappings: it goes from both. */
                release(t->writable + kept, TRANSLATE_CODE_BYTES - kept, MADV_REMOVE);
                t->large = 0;
        }
        cpu->code_bytes = 0;
}
