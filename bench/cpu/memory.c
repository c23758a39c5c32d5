/* Loads, copies and fills. */
#include "measure.h"

#define L1_BYTES   (16u << 10)
#define L2_BYTES   (256u << 10)
#define DRAM_BYTES (48u << 20)
#define COPY_BYTES (8u << 20)

/* A random cycle through all cache lines of `size` bytes. */
static void **cycle(size_t size)
{
        size_t lines = size / 64;
        char *memory = must(aligned_alloc(4096, size));
        uint32_t *order = must(malloc(lines * sizeof(*order)));
        uint64_t seed = 3;
        for (size_t i = 0; i < lines; i++)
                order[i] = (uint32_t)i;
        for (size_t i = lines - 1; i > 0; i--) {
                size_t j = next_random(&seed) % i;
                uint32_t t = order[i];
                order[i] = order[j];
                order[j] = t;
        }
        for (size_t i = 0; i < lines; i++)
                *(void **)(void *)(memory + order[i] * 64ull) = memory +
                                                                order[(i + 1) % lines] * 64ull;
        void **start = (void **)(void *)(memory + order[0] * 64ull);
        free(order);
        return start;
}

static void chase(void **at, uint64_t ops)
{
        while (ops--)
                at = *at;
        sink = (uint64_t)(uintptr_t)at;
}

#define CHASE(name, size)                                                                          \
        static void name(uint64_t ops)                                                             \
        {                                                                                          \
                static void **start;                                                               \
                if (!start)                                                                        \
                        start = cycle(size);                                                       \
                chase(start, ops);                                                                 \
        }
CHASE(chase_l1, L1_BYTES)
CHASE(chase_l2, L2_BYTES)
CHASE(chase_dram, DRAM_BYTES)

static char *from, *to;

static void buffers(void)
{
        if (from)
                return;
        from = must(aligned_alloc(4096, COPY_BYTES + 4096));
        to = must(aligned_alloc(4096, COPY_BYTES + 4096));
        memset(from, 1, COPY_BYTES + 4096);
        memset(to, 2, COPY_BYTES + 4096);
}

static void copy_small(uint64_t ops)
{
        buffers();
        volatile size_t size = 48;
        for (uint64_t n = 0; n < ops; n++)
                memcpy(to + (n & 1023) * 32, from + (n & 511) * 40, size + (n & 31));
}

static void copy_large(uint64_t ops)
{
        buffers();
        for (uint64_t n = 0; n < ops; n++)
                memcpy(to, from, COPY_BYTES);
}

static void rep_movsb(void *dst, const void *src, size_t size)
{
        __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(size) : : "memory");
}

static void rep_large(uint64_t ops)
{
        buffers();
        for (uint64_t n = 0; n < ops; n++)
                rep_movsb(to, from, COPY_BYTES);
}

static void rep_small(uint64_t ops)
{
        buffers();
        for (uint64_t n = 0; n < ops; n++)
                rep_movsb(to + (n & 1023) * 32, from + (n & 511) * 40, 200);
}

static void fill(uint64_t ops)
{
        buffers();
        for (uint64_t n = 0; n < ops; n++)
                memset(to, (int)n, COPY_BYTES);
}

static void sum(uint64_t ops)
{
        buffers();
        uint64_t total = 0;
        for (uint64_t n = 0; n < ops; n++)
                for (size_t i = 0; i < COPY_BYTES; i += 8)
                        total += *(const uint64_t *)(const void *)(from + i);
        sink = total;
}

static void strings(uint64_t ops)
{
        buffers();
        uint64_t total = 0;
        for (uint64_t n = 0; n < ops; n++) {
                char *s = from + (n & 255) * 16;
                s[20 + (n & 31)] = 0;
                total += strlen(s) + (size_t)(strcmp(s, from) < 0);
                s[20 + (n & 31)] = 1;
        }
        sink = total;
}

static const struct work works[] = {
        { "memory", "chase-l1", 2000000, chase_l1 },
        { "memory", "chase-l2", 1000000, chase_l2 },
        { "memory", "chase-dram", 200000, chase_dram },
        { "memory", "memcpy-small", 500000, copy_small },
        { "memory", "memcpy-large", 4, copy_large },
        { "memory", "movsb-small", 200000, rep_small },
        { "memory", "movsb-large", 4, rep_large },
        { "memory", "memset-large", 4, fill },
        { "memory", "sum", 4, sum },
        { "memory", "strings", 200000, strings },
};

int main(int argc, char **argv)
{
        return MEASURE(works, argc, argv);
}
