/* Densities of npflows in C and C++: npflows.embed(flow).handle in Python is the address of an npflows_density.

   All arrays are contiguous doubles, rows one after the other; those that are written to must not overlap others.  A
   condition is NULL for densities that take none, whose condition_dim is 0.  Any number of threads may call at once.  A
   density is valid in the process that embedded it, and its forks, while it lives there. */
#ifndef NPFLOWS_H
#define NPFLOWS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NPFLOWS_ABI 1

/* What functions return: */
#define NPFLOWS_OK 0               /* all is well */
#define NPFLOWS_NOWHERE 1          /* a log-density is -inf or NaN; it is written all the same */
#define NPFLOWS_WRONG_DIM (-1)     /* nothing was done: rows are not of density->dim values */
#define NPFLOWS_WRONG_CONDITION (-2) /* nothing was done: conditions are not of density->condition_dim values, or as many */

typedef struct npflows_density {
    /* n rows x (n, dim) under condition_rows conditions, 1 or n: log_prob (n), and the gradients grad (n, dim) and
       dcondition (n, condition_dim) unless these are NULL */
    int64_t (*evaluate)(const double *x, int64_t n, int64_t dim, const double *condition, int64_t condition_rows,
                        int64_t condition_dim, double *grad, double *dcondition, double *log_prob,
                        const struct npflows_density *density);
    /* samples x (n, dim) from rows z (n, dim) of the base distribution */
    int64_t (*sample)(const double *z, int64_t n, int64_t dim, const double *condition, int64_t condition_rows,
                      int64_t condition_dim, double *x, const struct npflows_density *density);
    int64_t dim, condition_dim, abi;
} npflows_density;

/* The density of a handle; NULL if this header is of another version of npflows. */
static inline const npflows_density *npflows_from_handle(int64_t handle) {
    const npflows_density *density = (const npflows_density *)(intptr_t)handle;
    return density != NULL && density->abi == NPFLOWS_ABI ? density : NULL;
}

/* The condition_dim of a call with a condition or NULL: -1, which is no density's, for a condition that is not wanted. */
static inline int64_t npflows_condition_width(const npflows_density *density, const double *condition) {
    return condition == NULL ? 0 : density->condition_dim > 0 ? density->condition_dim : -1;
}

/* The log-density of one row x (dim); NaN also where a condition is missing or not wanted. */
static inline double npflows_log_prob(const npflows_density *density, const double *x, const double *condition) {
    double log_prob = NAN;
    density->evaluate(x, 1, density->dim, condition, 1, npflows_condition_width(density, condition), NULL, NULL,
                      &log_prob, density);
    return log_prob;
}

/* The same, with the gradients grad (dim) and, unless it is NULL, dcondition (condition_dim). */
static inline double npflows_log_prob_and_grad(const npflows_density *density, const double *x, const double *condition,
                                               double *grad, double *dcondition) {
    double log_prob = NAN;
    density->evaluate(x, 1, density->dim, condition, 1, npflows_condition_width(density, condition), grad, dcondition,
                      &log_prob, density);
    return log_prob;
}

/* The log-densities (n) of rows x (n, dim), under one condition or n of them. */
static inline int64_t npflows_log_prob_rows(const npflows_density *density, int64_t n, const double *x,
                                            int64_t condition_rows, const double *condition, double *log_prob) {
    return density->evaluate(x, n, density->dim, condition, condition_rows, npflows_condition_width(density, condition),
                             NULL, NULL, log_prob, density);
}

/* The sample x (dim) that z (dim), drawn from the base distribution, becomes. */
static inline int64_t npflows_sample(const npflows_density *density, const double *z, const double *condition, double *x) {
    return density->sample(z, 1, density->dim, condition, 1, npflows_condition_width(density, condition), x, density);
}

#ifdef __cplusplus
}
#endif
#endif
