/* Decoded blocks by guest physical address. */
#include "cpu/core.h"

#include <string.h>

#define CODE_SHIFT 5u /* blocks that begin within 32 bytes share a bucket */

static struct block_bucket *bucket_of(const struct cpu *cpu, uint64_t gpa)
{
        return &cpu->buckets[(gpa >> CODE_SHIFT) * 0x9e3779b97f4a7c15 >> 32 & (BLOCK_BUCKETS - 1)];
}

/* Not 0, and different for all blocks of a bucket that begin in the same 32 bytes. */
static uint16_t tag_of(uint64_t gpa, unsigned mode)
{
        uint64_t line = (gpa >> CODE_SHIFT) * 0xff51afd7ed558ccd >> 56;
        return (uint16_t)(line << 8 | mode << 6 | (gpa & 31) << 1 | 1);
}

static struct block *way(const struct cpu *cpu, const struct block_bucket *bucket, unsigned n,
                         uint64_t gpa, uint16_t tag)
{
        if (bucket->tags[n] != tag)
                return NULL;
        struct block *b = &cpu->blocks[bucket->blocks[n]];
        return b->gpa == gpa && b->mode == cpu->mode ? b : NULL;
}

struct block *cpu_block_at(const struct cpu *cpu, uint64_t gpa)
{
        const struct block_bucket *bucket = bucket_of(cpu, gpa);
        uint16_t tag = tag_of(gpa, cpu->mode);
        for (unsigned n = 0; n < BLOCK_WAYS; n++) {
                struct block *b = way(cpu, bucket, n, gpa, tag);
                if (b)
                        return b;
        }
        return NULL;
}

void cpu_block_expect(const struct cpu *cpu, uint64_t gpa)
{
        __builtin_prefetch(bucket_of(cpu, gpa));
}

void cpu_block_add(struct cpu *cpu, const struct block *block)
{
        struct block_bucket *bucket = bucket_of(cpu, block->gpa);
        uint16_t tag = tag_of(block->gpa, block->mode);
        unsigned place = BLOCK_WAYS;
        for (unsigned n = 0; n < BLOCK_WAYS; n++) {
                if (!bucket->tags[n])
                        place = n;
                if (!way(cpu, bucket, n, block->gpa, tag))
                        continue;
                place = n;
                break;
        }
        if (place == BLOCK_WAYS) {
                place = bucket->victim;
                bucket->victim = (uint8_t)((place + 1) % BLOCK_WAYS);
        }
        bucket->tags[place] = tag;
        bucket->blocks[place] = (uint32_t)(block - cpu->blocks);
}

void cpu_blocks_flush(struct cpu *cpu)
{
        if (cpu->blocks_used > BLOCK_BUCKETS / 4) {
                memset(cpu->buckets, 0, BLOCK_BUCKETS * sizeof(*cpu->buckets));
                return;
        }
        for (unsigned k = 0; k < cpu->blocks_used; k++)
                *bucket_of(cpu, cpu->blocks[k].gpa) = (struct block_bucket){ 0 };
}
