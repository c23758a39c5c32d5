/* What the programs of bench/cpu share: a table of works, each run several times.
 *
 * A work does `ops` operations, always the same ones. It runs once to warm up, then
 * MEASURE_ROUNDS times, and the best round counts: whoever disturbs a round only makes it slower.
 * The clock is the guest's; bench_cpu.py checks it against the host's. Output, a line each:
 *
 *         cpu GROUP NAME NANOSECONDS-PER-OPERATION
 */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MEASURE_ROUNDS 4

struct work {
        const char *group, *name;
        uint64_t ops;
        void (*run)(uint64_t ops);
};

/* Results end here, so that the compiler cannot leave work out. */
static volatile uint64_t sink;

static inline uint64_t clock_ns(void)
{
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* xorshift: the same numbers everywhere. */
static inline uint64_t next_random(uint64_t *state)
{
        uint64_t x = *state;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        return *state = x;
}

static void measure_one(const struct work *w)
{
        uint64_t best = UINT64_MAX;
        w->run(w->ops / 4 + 1);
        for (unsigned round = 0; round < MEASURE_ROUNDS; round++) {
                uint64_t start = clock_ns();
                w->run(w->ops);
                uint64_t took = clock_ns() - start;
                best = took < best ? took : best;
        }
        printf("cpu %s %s %.3f\n", w->group, w->name, (double)best / (double)w->ops);
        fflush(stdout);
}

/* Runs all works, or those that the arguments name. */
static int measure(const struct work *works, unsigned length, int argc, char **argv)
{
        printf("clock %llu\n", (unsigned long long)clock_ns());
        fflush(stdout);
        for (unsigned i = 0; i < length; i++) {
                int wanted = argc < 2;
                for (int a = 1; a < argc; a++)
                        wanted |= strcmp(argv[a], works[i].name) == 0;
                if (wanted)
                        measure_one(&works[i]);
        }
        printf("clock %llu\n", (unsigned long long)clock_ns());
        return 0;
}
#define MEASURE(works, argc, argv) measure(works, sizeof(works) / sizeof(works[0]), argc, argv)

static inline void *must(void *p)
{
        if (!p || p == (void *)-1) {
                perror("bench");
                exit(1);
        }
        return p;
}
