/* Scalar floating point: SSE2 as compilers make it, x87, and the C library's functions. */
#include "measure.h"

#include <math.h>

#define BODIES 5
static void bodies(uint64_t ops)
{
        static double x[BODIES][3], v[BODIES][3];
        for (unsigned i = 0; i < BODIES; i++)
                for (unsigned k = 0; k < 3; k++)
                        x[i][k] = i * 1.5 + k, v[i][k] = 0.1 * k - 0.05 * i;
        for (uint64_t n = 0; n < ops; n++) {
                for (unsigned i = 0; i < BODIES; i++) {
                        for (unsigned j = i + 1; j < BODIES; j++) {
                                double d[3], square = 0.01;
                                for (unsigned k = 0; k < 3; k++) {
                                        d[k] = x[i][k] - x[j][k];
                                        square += d[k] * d[k];
                                }
                                double pull = 0.001 / (square * sqrt(square));
                                for (unsigned k = 0; k < 3; k++) {
                                        v[i][k] -= d[k] * pull;
                                        v[j][k] += d[k] * pull;
                                }
                        }
                }
                for (unsigned i = 0; i < BODIES; i++)
                        for (unsigned k = 0; k < 3; k++)
                                x[i][k] += 0.001 * v[i][k];
        }
        sink = (uint64_t)(x[0][0] * 1e6);
}

static void mandelbrot(uint64_t ops)
{
        uint64_t inside = 0;
        for (uint64_t n = 0; n < ops; n++) {
                double cr = (double)(n % 61) / 30.0 - 1.5, ci = (double)(n % 37) / 18.0 - 1.0;
                double r = 0, i = 0;
                unsigned turns = 0;
                for (; turns < 50 && r * r + i * i < 4; turns++) {
                        double next = r * r - i * i + cr;
                        i = 2 * r * i + ci;
                        r = next;
                }
                inside += turns;
        }
        sink = inside;
}

#define ORDER 48
static void matrix(uint64_t ops)
{
        static double a[ORDER][ORDER], b[ORDER][ORDER], c[ORDER][ORDER];
        for (unsigned i = 0; i < ORDER; i++)
                for (unsigned j = 0; j < ORDER; j++)
                        a[i][j] = i + j, b[i][j] = i * 0.5 - j;
        for (uint64_t n = 0; n < ops; n++)
                for (unsigned i = 0; i < ORDER; i++)
                        for (unsigned j = 0; j < ORDER; j++) {
                                double sum = 0;
                                for (unsigned k = 0; k < ORDER; k++)
                                        sum += a[i][k] * b[k][j];
                                c[i][j] = sum;
                        }
        sink = (uint64_t)(int64_t)c[3][5];
}

static void single(uint64_t ops)
{
        float x = 1.5f, y = 0.5f, sum = 0;
        for (uint64_t n = 0; n < ops; n++) {
                x = x * 1.0001f + 0.25f;
                y = y / 1.001f + (float)(n & 15);
                sum += x > 1000 ? (x = 1) : sqrtf(y);
        }
        sink = (uint64_t)sum;
}

static void x87(uint64_t ops)
{
        long double x = 0.5L, sum = 0;
        for (uint64_t n = 0; n < ops; n++) {
                x = 3.75L * x * (1 - x);
                sum += x / (1 + (long double)(n & 7));
        }
        sink = (uint64_t)(sum * 1000);
}

static void library(uint64_t ops)
{
        double sum = 0;
        for (uint64_t n = 0; n < ops; n++) {
                double x = (double)(n % 1000) * 0.01 + 0.1;
                sum += sin(x) + exp(-x) + pow(x, 1.3) + log(x);
        }
        sink = (uint64_t)(sum * 1000);
}

static const struct work works[] = {
        { "float", "bodies", 10000, bodies }, { "float", "mandelbrot", 20000, mandelbrot },
        { "float", "matrix", 20, matrix },    { "float", "single", 500000, single },
        { "float", "x87", 300000, x87 },      { "float", "libm", 40000, library },
};

int main(int argc, char **argv)
{
        return MEASURE(works, argc, argv);
}
