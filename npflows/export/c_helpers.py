"""Functions in C that generated ones call; a file has those that it needs."""

HELPERS = (
    {
        "sign": """static double PREFIX_sign(double a)
{
    return a > 0.0 ? 1.0 : a < 0.0 ? -1.0 : a;
}
""",
        "maximum": """static double PREFIX_maximum(double a, double b)
{
    return a > b || a != a ? a : b;
}
""",
        "minimum": """static double PREFIX_minimum(double a, double b)
{
    return a < b || a != a ? a : b;
}
""",
        "mod": """static double PREFIX_mod(double a, double b)
{
    double r = fmod(a, b);
    return r != 0.0 && (r < 0.0) != (b < 0.0) ? r + b : r;
}
""",
        "sigmoid": """static double PREFIX_sigmoid(double a)
{
    double e = exp(-fabs(a));
    return (a < 0.0 ? e : 1.0) / (1.0 + e);
}
""",
        "softplus": """static double PREFIX_softplus(double a)
{
    return (a > 0.0 || a != a ? a : 0.0) + log1p(exp(-fabs(a)));
}
""",
        "normal_cdf": """static double PREFIX_normal_cdf(double a)
{
    return 0.5 * erfc(-a * 0.70710678118654752440);
}
""",
    }
    | {
        f"dense_{kind}": f"""/* y = W x, for a matrix of m rows and n columns */
static void PREFIX_dense_{kind}(int m, int n, const {kind} *w, const double *x, double *y)
{{
    int i, j;
    for (i = 0; i < m; i++) {{
        const {kind} *row = w + (size_t)i * n;
        double a = 0.0, b = 0.0, c = 0.0, d = 0.0;
        for (j = 0; j + 3 < n; j += 4) {{
            a += row[j] * x[j];
            b += row[j + 1] * x[j + 1];
            c += row[j + 2] * x[j + 2];
            d += row[j + 3] * x[j + 3];
        }}
        for (; j < n; j++)
            a += row[j] * x[j];
        y[i] = (a + b) + (c + d);
    }}
}}
"""
        for kind in ("double", "float")
    }
    | {
        f"dense_transposed_{kind}": f"""/* y = W' x, for a matrix of m rows and n columns */
static void PREFIX_dense_transposed_{kind}(int m, int n, const {kind} *w, const double *x, double *y)
{{
    int i, j;
    for (j = 0; j < n; j++)
        y[j] = 0.0;
    for (i = 0; i < m; i++) {{
        const {kind} *row = w + (size_t)i * n;
        const double a = x[i];
        for (j = 0; j < n; j++)
            y[j] += row[j] * a;
    }}
}}
"""
        for kind in ("double", "float")
    }
    | {
        f"convolve_{kind}": f"""/* images of c_out channels from those of c_in, for kernels (c_out, size, size, c_in) */
static void PREFIX_convolve_{kind}(int c_out, int size, int c_in, int height, int width, const {kind} *w, const double *x,
                             double *y)
{{
    const int reach = size / 2;
    int o, p, q, i, r, c;
    for (o = 0; o < c_out * height * width; o++)
        y[o] = 0.0;
    for (o = 0; o < c_out; o++)
        for (p = 0; p < size; p++)
            for (q = 0; q < size; q++)
                for (i = 0; i < c_in; i++) {{
                    const double a = w[(((size_t)o * size + p) * size + q) * c_in + i];
                    for (r = 0; r < height; r++) {{
                        const int row = r + p - reach;
                        if (row < 0 || row >= height)
                            continue;
                        for (c = 0; c < width; c++) {{
                            const int column = c + q - reach;
                            if (column >= 0 && column < width)
                                y[(o * height + r) * width + c] += a * x[(i * height + row) * width + column];
                        }}
                    }}
                }}
}}
"""
        for kind in ("double", "float")
    }
)
"""By name; `PREFIX_` is replaced."""
